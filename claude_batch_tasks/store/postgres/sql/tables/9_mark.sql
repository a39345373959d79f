-- What says that the schema is not to be used, in JSON: its jobs are in another store, or are being copied into it.
CREATE TABLE claude_batch.mark (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  mark text NOT NULL
);
