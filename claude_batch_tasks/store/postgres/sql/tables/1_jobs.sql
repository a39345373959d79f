-- Jobs, their records, and the schedule. All times are seconds since 1970, by the database's clock.

-- What has been done to this schema, and which releases may work on it; see migrations.py.
CREATE TABLE claude_batch.schema_version (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version integer NOT NULL,
  least integer NOT NULL
);

-- A job from when its first request is staged. What belongs to it refers to its id, so that nothing of a job that was
-- deleted is ever found under a job that has its job_id since.
CREATE TABLE claude_batch.jobs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  job_id text NOT NULL,
  nonce text NOT NULL,
  -- false: its requests are being staged, and no job is made of them yet
  created boolean NOT NULL DEFAULT false,
  submitted_at double precision,
  -- when all of it counts as gone; null: it does not expire
  expires_at double precision
);
CREATE UNIQUE INDEX jobs_job_id ON claude_batch.jobs (job_id) WHERE created;
CREATE INDEX jobs_beginning ON claude_batch.jobs (job_id text_pattern_ops) WHERE created;
CREATE UNIQUE INDEX jobs_staged ON claude_batch.jobs (job_id, nonce) WHERE NOT created;
CREATE INDEX jobs_submitted ON claude_batch.jobs (submitted_at, id) WHERE created;
CREATE INDEX jobs_expires ON claude_batch.jobs (expires_at) WHERE expires_at IS NOT NULL;

-- Jobs that were deleted or have expired, and whose other rows are still to be removed.
CREATE TABLE claude_batch.removed_jobs (
  id bigint PRIMARY KEY
);

-- The records of jobs (batch and lane are -1), of batches (lane is -1), and of senders. A record has the name of each
-- field with its value as JSON text: the order of keys in a value stays, and any character.
CREATE TABLE claude_batch.records (
  job bigint NOT NULL,
  batch integer NOT NULL,
  lane integer NOT NULL,
  record jsonb NOT NULL,
  PRIMARY KEY (job, batch, lane)
) WITH (fillfactor = 70);

-- The lease of each unit, and when a message of it is due. It goes by job_id: a unit whose job is gone is in the
-- schedule until that was reported.
CREATE TABLE claude_batch.units (
  job_id text NOT NULL,
  batch integer NOT NULL,
  lane integer NOT NULL,
  position bigint NOT NULL DEFAULT -1,
  owner text,
  lease_ends double precision,
  step_failures integer NOT NULL DEFAULT 0,
  -- as JSON text
  step_failure text,
  -- null: no message is to come
  due_at double precision,
  -- its message is made when it is due
  waiting boolean NOT NULL DEFAULT false,
  resent integer NOT NULL DEFAULT 0,
  resent_at double precision,
  missed double precision,
  -- the account among whose batches in flight it is listed while it waits, how (JSON text), and when its job gives up
  -- waiting
  account text,
  flight text,
  deadline double precision,
  PRIMARY KEY (job_id, batch, lane)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX units_due ON claude_batch.units (waiting, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX units_in_flight ON claude_batch.units (account, due_at) WHERE account IS NOT NULL;

-- Single values that expire.
CREATE TABLE claude_batch.flags (
  name text PRIMARY KEY,
  value bytea NOT NULL DEFAULT '',
  expires_at double precision NOT NULL
);
CREATE INDEX flags_expires ON claude_batch.flags (expires_at);
