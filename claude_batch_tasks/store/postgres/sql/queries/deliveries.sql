-- name: count_deliveries
SELECT name, sum(ones) FROM claude_batch.bits
WHERE job = claude_batch.find_job(%(job_id)s) AND batch < %(batches)s
  AND name IN ('delivered', 'undelivered', 'announced')
GROUP BY name
