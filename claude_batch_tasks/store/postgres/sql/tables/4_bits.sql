-- A bit for each request of a job (batch is -1) or of a batch: by name, for what is known of it. They are in segments, so
-- that a change of one bit writes little, and those that change far apart do not wait for one another.
CREATE TABLE claude_batch.bits (
  job bigint NOT NULL,
  batch integer NOT NULL,
  name text NOT NULL,
  segment integer NOT NULL,
  -- the first position is the leftmost bit
  bits bit(4096) NOT NULL,
  -- how many of them are set
  ones integer NOT NULL,
  PRIMARY KEY (job, batch, name, segment)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
