"""What a Redis server has of jobs, read and written part by part."""

from claude_batch_tasks.store.redis.transfer.part import RedisTransfer as RedisTransfer
