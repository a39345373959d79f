-- Requests on their way through the Messages API, their rate limits, and what jobs spend. Costs are nano-dollars.

-- What has its outcome is in the table outcomes instead.
CREATE TABLE claude_batch.calls (
  job bigint NOT NULL,
  batch integer NOT NULL,
  position integer NOT NULL,
  -- from when on it may be sent; null: it does not wait
  due_at double precision,
  -- the sender that has sent it; null: none has, or its answer came
  lane integer,
  -- what is reserved for it while it is on its way; null: nothing, since nothing limits the cost
  most bigint,
  -- how often it was refused
  refused integer NOT NULL DEFAULT 0,
  PRIMARY KEY (job, batch, position)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX calls_waiting ON claude_batch.calls (job, batch, position, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX calls_sent ON claude_batch.calls (job, batch, lane, position) WHERE lane IS NOT NULL;

-- Rate limits of Messages calls, by what those calls have in common.
CREATE TABLE claude_batch.paces (
  pace text PRIMARY KEY,
  -- calls, input tokens and output tokens of all calls so far
  sent bigint NOT NULL DEFAULT 0,
  input double precision NOT NULL DEFAULT 0,
  output double precision NOT NULL DEFAULT 0,
  -- the number of the call whose answer says what is left, and when that came
  synced bigint NOT NULL DEFAULT 0,
  at double precision NOT NULL DEFAULT 0,
  -- what the limits are, and what is left of them, in the order of rules.RATE_LIMITS; null: no answer has said it
  limits double precision[] NOT NULL DEFAULT '{NULL,NULL,NULL,NULL}',
  remaining double precision[] NOT NULL DEFAULT '{NULL,NULL,NULL,NULL}',
  -- calls in flight; null: as many as at first
  allowed double precision,
  -- when they were last halved
  cut_at double precision,
  -- refusals since the last answer, those made together counted once
  in_a_row integer NOT NULL DEFAULT 0,
  -- output tokens of an answer
  usual_output double precision,
  expires_at double precision NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX paces_expires ON claude_batch.paces (expires_at);

-- Calls in flight, of all jobs. They go by job_id: an answer may come after its job has gone.
CREATE TABLE claude_batch.pace_calls (
  pace text NOT NULL,
  job_id text NOT NULL,
  batch integer NOT NULL,
  position integer NOT NULL,
  -- until when it counts as such
  expires_at double precision NOT NULL,
  PRIMARY KEY (pace, job_id, batch, position)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX pace_calls_expires ON claude_batch.pace_calls (expires_at);

-- Until when no call of a name is to be made.
CREATE TABLE claude_batch.pauses (
  name text PRIMARY KEY,
  until double precision NOT NULL
) WITH (fillfactor = 80);

-- What a job has spent and reserved: of all it may spend, and of the share of the Messages API.
CREATE TABLE claude_batch.money (
  job bigint PRIMARY KEY,
  spent bigint NOT NULL DEFAULT 0,
  reserved bigint NOT NULL DEFAULT 0,
  fallback_spent bigint NOT NULL DEFAULT 0,
  fallback_reserved bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- What is reserved for each generation of a batch, and what it has cost; null: that is not known yet.
CREATE TABLE claude_batch.turns (
  job bigint NOT NULL,
  batch integer NOT NULL,
  turn integer NOT NULL,
  reserved bigint NOT NULL,
  spent bigint,
  PRIMARY KEY (job, batch, turn)
);
