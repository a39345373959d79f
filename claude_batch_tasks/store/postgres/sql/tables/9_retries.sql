-- Which requests of a batch were taken by which of its job's retries: a bit for each, as Claim has them.
CREATE TABLE claude_batch.taken (
  job bigint NOT NULL,
  batch integer NOT NULL,
  retry integer NOT NULL,
  requests bytea NOT NULL,
  PRIMARY KEY (job, batch, retry)
);
