-- Asks: single requests of many processes, in pools that become jobs.

-- A pool has the id of the job that it becomes. It goes with that job.
CREATE TABLE claude_batch.pools (
  job_id text PRIMARY KEY,
  -- what its asks have in common
  key text NOT NULL,
  -- the transaction of a caller that has opened it, until that commits; null: it takes the asks of all
  opened_in xid8,
  -- what closes it, what asks of its name may cost in one window, and before when it becomes no job
  max_requests integer,
  max_bytes bigint,
  max_cost bigint,
  starts_at double precision NOT NULL DEFAULT 0,
  -- the PoolRecord it was opened with, in JSON; the columns from state to deadline take the place of what that says
  record text NOT NULL,
  state text NOT NULL,
  count integer NOT NULL,
  withdrawn integer NOT NULL DEFAULT 0,
  size bigint NOT NULL,
  opened_at double precision NOT NULL,
  due_at double precision NOT NULL,
  deadline double precision,
  -- when somebody is to make a job of it (again); null: nobody is
  next_at double precision,
  -- how many are making a job of it, how often a message was sent for that, how often no job could be made
  sealing integer NOT NULL DEFAULT 0,
  sent integer NOT NULL DEFAULT 0,
  failures integer NOT NULL DEFAULT 0,
  -- its stored asks were removed, since the batch was created
  dropped boolean NOT NULL DEFAULT false,
  expires_at double precision
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX pools_open ON claude_batch.pools (key, opened_at) WHERE state = 'open';
CREATE INDEX pools_own ON claude_batch.pools (opened_in) WHERE opened_in IS NOT NULL;
CREATE INDEX pools_next ON claude_batch.pools (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX pools_listed ON claude_batch.pools (opened_at, job_id) WHERE state IN ('open', 'closed', 'parked');
CREATE INDEX pools_expires ON claude_batch.pools (expires_at) WHERE expires_at IS NOT NULL;

-- The asks that a pool has. What was withdrawn, or moved to another pool, leaves its position empty.
CREATE TABLE claude_batch.pool_asks (
  job_id text NOT NULL REFERENCES claude_batch.pools ON DELETE CASCADE,
  position integer NOT NULL,
  ask_id text NOT NULL,
  -- bytes of it in a create
  size bigint NOT NULL,
  -- when it is too late for it to be sent
  send_before double precision,
  params bytea NOT NULL,
  PRIMARY KEY (job_id, position)
);
ALTER TABLE claude_batch.pool_asks ALTER COLUMN params SET STORAGE EXTERNAL;

-- Where each ask is, and how it ended.
CREATE TABLE claude_batch.asks (
  ask_id text PRIMARY KEY,
  job_id text NOT NULL,
  position integer NOT NULL,
  asked_at double precision NOT NULL,
  state text NOT NULL DEFAULT 'waiting',
  withdrawn boolean NOT NULL DEFAULT false,
  -- what follows it, until it has ended, and its headers; null: nothing
  canvas text,
  headers text,
  -- what it reserves of the cost limit of a pool's name in a window of so many seconds; null: nothing limits it
  reserved bigint NOT NULL DEFAULT 0,
  name text,
  seconds double precision,
  start double precision,
  expires_at double precision NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX asks_expires ON claude_batch.asks (expires_at);

-- What all asks of a pool's name have reserved and spent in a window of time, nano-dollars.
CREATE TABLE claude_batch.costs (
  name text NOT NULL,
  seconds double precision NOT NULL,
  start double precision NOT NULL,
  amount bigint NOT NULL,
  expires_at double precision NOT NULL,
  PRIMARY KEY (name, seconds, start)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX costs_expires ON claude_batch.costs (expires_at);
