-- name: read_events
SELECT number, event FROM claude_batch.history WHERE job = claude_batch.find_job(%(job_id)s) ORDER BY number
