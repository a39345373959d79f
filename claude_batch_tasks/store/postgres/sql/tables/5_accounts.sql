-- What is known of accounts at Anthropic, which the API can be asked for again, and what concerns no job for long.

-- The unit to which each batch id belongs.
CREATE TABLE claude_batch.batch_ids (
  batch_id text PRIMARY KEY,
  job_id text NOT NULL,
  batch integer NOT NULL,
  lane integer NOT NULL,
  expires_at double precision NOT NULL
);
CREATE INDEX batch_ids_expires ON claude_batch.batch_ids (expires_at);

-- Jobs of which something is to be downloaded again.
CREATE TABLE claude_batch.restore_requests (
  job_id text PRIMARY KEY,
  requested_at double precision NOT NULL
);
