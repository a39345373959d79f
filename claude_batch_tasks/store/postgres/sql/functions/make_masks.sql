-- The segments in which runs of positions are, and in each the bits of these positions.
CREATE OR REPLACE FUNCTION claude_batch.make_masks(
  firsts integer[], counts integer[], OUT segment integer, OUT mask bit
) RETURNS SETOF record
LANGUAGE sql IMMUTABLE AS $$
  SELECT number, bit_or(((~ 0::bit(4096)) << (4096 - (upto - begin))) >> begin)
  FROM unnest(firsts, counts) AS run (first, count),
    generate_series(run.first / 4096, (run.first + run.count - 1) / 4096) AS number,
    LATERAL (
      SELECT greatest(run.first - number * 4096, 0) AS begin, least(run.first + run.count - number * 4096, 4096) AS upto
    ) AS span
  WHERE run.count > 0
  GROUP BY number
  ORDER BY number
$$;
