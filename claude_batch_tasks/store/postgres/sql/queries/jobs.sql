-- name: read_job
SELECT r.record FROM claude_batch.records r
WHERE r.job = claude_batch.find_job(%(job_id)s) AND r.batch = -1 AND r.lane = -1
