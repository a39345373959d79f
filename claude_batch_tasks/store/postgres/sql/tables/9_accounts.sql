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

-- The batch whose task is to make a list call, of those in flight on an account that are polled through one queue.
CREATE TABLE claude_batch.list_call_askers (
  account text NOT NULL,
  queue text NOT NULL,
  job_id text NOT NULL,
  batch integer NOT NULL,
  -- when its message was sent
  asked_at double precision NOT NULL,
  -- how many in a row made none
  in_vain integer NOT NULL,
  expires_at double precision NOT NULL,
  PRIMARY KEY (account, queue)
) WITH (fillfactor = 50);
CREATE INDEX list_call_askers_expires ON claude_batch.list_call_askers (expires_at);

-- The last list of an account's batches.
CREATE TABLE claude_batch.account_lists (
  account text PRIMARY KEY,
  -- when the list call was begun, and from when on it shows every batch that was created
  taken_at double precision NOT NULL,
  since double precision NOT NULL,
  expires_at double precision NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX account_lists_expires ON claude_batch.account_lists (expires_at);

CREATE TABLE claude_batch.listed_batches (
  account text NOT NULL,
  batch_id text NOT NULL,
  entry bytea NOT NULL,
  expires_at double precision NOT NULL,
  PRIMARY KEY (account, batch_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX listed_batches_expires ON claude_batch.listed_batches (expires_at);

-- How long the last batches of an account (account:), or of a kind (kind:), took: the latest first.
CREATE TABLE claude_batch.past_durations (
  name text PRIMARY KEY,
  requests integer[] NOT NULL,
  seconds double precision[] NOT NULL,
  expires_at double precision NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX past_durations_expires ON claude_batch.past_durations (expires_at);
