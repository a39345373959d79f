-- What happened to each job, in JSON. The numbers of those that were removed from the middle are missing.
CREATE TABLE claude_batch.history (
  job bigint NOT NULL,
  number integer NOT NULL,
  event text NOT NULL,
  PRIMARY KEY (job, number)
);
