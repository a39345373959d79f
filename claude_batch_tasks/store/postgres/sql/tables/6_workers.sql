-- Workers that run, as they reported themselves, in JSON.
CREATE TABLE claude_batch.workers (
  hostname text PRIMARY KEY,
  presence text NOT NULL,
  expires_at double precision NOT NULL
) WITH (fillfactor = 50);
