-- Prompts and custom_ids. They are staged under the id of a job that is not created yet, and stay where they are.

-- The requests of each batch, in chunks.
CREATE TABLE claude_batch.payload_chunks (
  job bigint NOT NULL,
  batch integer NOT NULL,
  -- the position in the batch of its first request
  first_position integer NOT NULL,
  requests integer NOT NULL,
  -- null: it was lost before it came here
  body bytea,
  -- likewise
  ids bytea,
  PRIMARY KEY (job, batch, first_position)
) WITH (toast.autovacuum_vacuum_scale_factor = 0.05);
-- Both are compressed already.
ALTER TABLE claude_batch.payload_chunks ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE claude_batch.payload_chunks ALTER COLUMN ids SET STORAGE EXTERNAL;

-- The custom_ids of a job (batch and attempt are -1), or of what was downloaded in an attempt.
CREATE TABLE claude_batch.index_parts (
  job bigint NOT NULL,
  batch integer NOT NULL,
  attempt integer NOT NULL,
  part integer NOT NULL,
  entries bytea NOT NULL,
  PRIMARY KEY (job, batch, attempt, part)
);
