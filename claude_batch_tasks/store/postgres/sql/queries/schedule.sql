-- name: due_times
SELECT u.due_at, u.missed
FROM unnest(%(job_ids)s::text[], %(batches)s::integer[], %(lanes)s::integer[])
  WITH ORDINALITY AS asked (job_id, batch, lane, place)
LEFT JOIN claude_batch.units u USING (job_id, batch, lane)
ORDER BY asked.place

-- name: list_overdue
(
  SELECT job_id, batch, lane, due_at FROM claude_batch.units
  WHERE waiting AND due_at < %(before)s AND due_at >= %(last)s
    AND (due_at, job_id, batch, lane) > (%(last)s, %(job_id)s, %(batch)s, %(lane)s)
  ORDER BY due_at, job_id, batch, lane LIMIT %(limit)s
)
UNION ALL
(
  SELECT job_id, batch, lane, due_at FROM claude_batch.units
  WHERE NOT waiting AND due_at < %(before)s AND due_at >= %(last)s
    AND (due_at, job_id, batch, lane) > (%(last)s, %(job_id)s, %(batch)s, %(lane)s)
  ORDER BY due_at, job_id, batch, lane LIMIT %(limit)s
)
ORDER BY due_at, job_id, batch, lane LIMIT %(limit)s
