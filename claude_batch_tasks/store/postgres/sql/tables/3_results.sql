-- Answers: the rows of downloaded result files, and outcomes that the Messages API gave.

CREATE TABLE claude_batch.result_chunks (
  job bigint NOT NULL,
  batch integer NOT NULL,
  attempt integer NOT NULL,
  copy text NOT NULL,
  number integer NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (job, batch, attempt, copy, number)
) WITH (toast.autovacuum_vacuum_scale_factor = 0.05);
-- They are compressed already.
ALTER TABLE claude_batch.result_chunks ALTER COLUMN data SET STORAGE EXTERNAL;

-- Downloads of a batch's results; with a copy's name: of what was published before, and is to be put in its place.
CREATE TABLE claude_batch.result_attempts (
  job bigint NOT NULL,
  batch integer NOT NULL,
  attempt integer NOT NULL,
  copy text NOT NULL,
  -- null: it is published
  expires_at double precision,
  -- in which chunk the row of each request is; unsigned 32-bit integers, as all that follow
  pieces bytea,
  -- positions of the requests that may go to the Messages API
  eligible bytea,
  -- positions of the requests that are in the next smaller batch; null: they are not known
  again bytea,
  PRIMARY KEY (job, batch, attempt, copy)
);
CREATE INDEX result_attempts_expires ON claude_batch.result_attempts (expires_at) WHERE expires_at IS NOT NULL;
-- So a part of it is read without the rest.
ALTER TABLE claude_batch.result_attempts ALTER COLUMN pieces SET STORAGE EXTERNAL;

-- Nothing is added to a download that was removed. A copy is put in its place by a change of one row.
ALTER TABLE claude_batch.result_chunks ADD FOREIGN KEY (job, batch, attempt, copy)
  REFERENCES claude_batch.result_attempts ON DELETE CASCADE ON UPDATE CASCADE;

CREATE TABLE claude_batch.outcomes (
  job bigint NOT NULL,
  batch integer NOT NULL,
  position integer NOT NULL,
  outcome bytea NOT NULL,
  -- it says that the answer counts as lost
  given_up boolean NOT NULL DEFAULT false,
  PRIMARY KEY (job, batch, position)
);
ALTER TABLE claude_batch.outcomes ALTER COLUMN outcome SET STORAGE EXTERNAL;
