-- name: find_ends
SELECT DISTINCT ON (batch) batch, first_position + requests FROM claude_batch.payload_chunks
WHERE job = %(job)s ORDER BY batch, first_position DESC

-- name: share_staged
SELECT FROM claude_batch.jobs
WHERE id = %(job)s AND NOT created AND expires_at > claude_batch.clock() FOR KEY SHARE

-- name: copy_chunks
COPY claude_batch.payload_chunks (job, batch, first_position, requests, body, ids) FROM STDIN (FORMAT BINARY)

-- name: stage_index
INSERT INTO claude_batch.index_parts (job, batch, attempt, part, entries)
SELECT %(job)s, -1, -1, part, entries FROM unnest(%(parts)b::integer[], %(entries)b::bytea[]) AS each (part, entries)
ON CONFLICT (job, batch, attempt, part) DO UPDATE SET entries = excluded.entries

-- name: read_body
SELECT first_position, body, last FROM (
  SELECT first_position, body, max(first_position) OVER () AS last,
    sum(octet_length(body)) OVER (ORDER BY first_position) - octet_length(body) AS before
  FROM claude_batch.payload_chunks
  WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND first_position > %(after)s
) AS found
WHERE coalesce(before, 0) < %(size)s ORDER BY first_position

-- name: read_ids
SELECT first_position, ids, last FROM (
  SELECT first_position, ids, max(first_position) OVER () AS last,
    sum(octet_length(ids)) OVER (ORDER BY first_position) - octet_length(ids) AS before
  FROM claude_batch.payload_chunks
  WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND first_position > %(after)s
) AS found
WHERE coalesce(before, 0) < %(size)s ORDER BY first_position

-- name: find_body
SELECT first_position, body FROM claude_batch.payload_chunks
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND first_position <= %(position)s
ORDER BY first_position DESC LIMIT 1

-- name: find_ids
SELECT first_position, ids FROM claude_batch.payload_chunks
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND first_position <= %(position)s
ORDER BY first_position DESC LIMIT 1

-- name: read_index
SELECT entries FROM claude_batch.index_parts
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND attempt = %(attempt)s AND part = %(part)s
