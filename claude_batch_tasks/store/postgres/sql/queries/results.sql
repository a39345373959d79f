-- name: copy_chunks
COPY claude_batch.result_chunks (job, batch, attempt, copy, number, data) FROM STDIN (FORMAT BINARY)

-- name: read_rows
SELECT number, data, last FROM (
  SELECT number, data, max(number) OVER () AS last,
    sum(octet_length(data)) OVER (ORDER BY number) - octet_length(data) AS before
  FROM claude_batch.result_chunks
  WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND attempt = %(attempt)s AND copy = ''
    AND number > %(after)s
) AS found
WHERE before < %(size)s ORDER BY number

-- name: is_published
SELECT expires_at IS NULL FROM claude_batch.result_attempts
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND attempt = %(attempt)s AND copy = ''

-- name: read_pieces
SELECT pieces FROM claude_batch.result_attempts
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND attempt = %(attempt)s AND copy = ''

-- name: find_pieces
SELECT substring(a.pieces FROM 4 * wanted + 1 FOR 4)
FROM claude_batch.result_attempts a, unnest(%(positions)s::integer[]) WITH ORDINALITY AS each (wanted, place)
WHERE a.job = claude_batch.find_job(%(job_id)s) AND a.batch = %(batch)s AND a.attempt = %(attempt)s AND a.copy = ''
ORDER BY place

-- name: read_chunk
SELECT data FROM claude_batch.result_chunks
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND attempt = %(attempt)s AND copy = ''
  AND number = %(number)s

-- name: read_eligible
SELECT eligible FROM claude_batch.result_attempts
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND attempt = %(attempt)s AND copy = ''

-- name: read_again
SELECT again FROM claude_batch.result_attempts
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND attempt = %(attempt)s AND copy = ''

-- name: read_outcomes
SELECT position, outcome FROM (
  SELECT position, outcome, sum(octet_length(outcome)) OVER (ORDER BY position) - octet_length(outcome) AS before
  FROM (
    SELECT position, outcome FROM claude_batch.outcomes
    WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND position > %(after)s
    ORDER BY position LIMIT %(limit)s
  ) AS found
) AS page
WHERE before < %(size)s ORDER BY position

-- name: find_outcomes
SELECT position, outcome FROM claude_batch.outcomes
WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s AND position = ANY (%(positions)s::integer[])

-- name: count_outcomes
SELECT count(*) FROM claude_batch.outcomes WHERE job = claude_batch.find_job(%(job_id)s) AND batch = %(batch)s

-- name: mark_announced
SELECT claude_batch.set_bits(job, %(batch)s, 'announced', %(firsts)s::integer[], %(counts)s::integer[])
FROM claude_batch.share_job(%(job_id)s) AS job WHERE job IS NOT NULL
