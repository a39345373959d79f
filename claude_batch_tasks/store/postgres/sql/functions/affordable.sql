-- Whether something may be paid for, of a limit (null: none): 'yes'; 'wait': something that is reserved may cost less than
-- was reserved for it; 'no'. What is alone may cost more than is left, if that covers what it costs at least.
CREATE OR REPLACE FUNCTION claude_batch.affordable(
  most_of_all bigint, spent bigint, reserved bigint, least_cost bigint, most_cost bigint
) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN most_of_all IS NULL OR most_cost <= most_of_all - spent - reserved THEN 'yes'
    WHEN least_cost > most_of_all - spent THEN 'no'
    WHEN reserved > 0 THEN 'wait'
    ELSE 'yes'
  END
$$;
