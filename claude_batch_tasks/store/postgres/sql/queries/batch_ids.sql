-- name: find_owner
SELECT job_id, batch, lane FROM claude_batch.batch_ids
WHERE batch_id = %(batch_id)s AND expires_at > claude_batch.clock()
