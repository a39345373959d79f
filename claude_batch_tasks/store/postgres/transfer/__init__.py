"""What a PostgreSQL database has of jobs, read and written part by part."""

from claude_batch_tasks.store.postgres.transfer.part import PostgresTransfer as PostgresTransfer
