-- Put amounts on top of what a job has spent and reserved. Whoever calls it has locked the job.
CREATE OR REPLACE FUNCTION claude_batch.add_money(
  of_job bigint, more_spent bigint, more_reserved bigint, more_fallback_spent bigint, more_fallback_reserved bigint
) RETURNS void
LANGUAGE sql VOLATILE AS $$
  INSERT INTO claude_batch.money AS m (job, spent, reserved, fallback_spent, fallback_reserved)
  VALUES (of_job, more_spent, more_reserved, more_fallback_spent, more_fallback_reserved)
  ON CONFLICT (job) DO UPDATE SET
    spent = m.spent + excluded.spent, reserved = m.reserved + excluded.reserved,
    fallback_spent = m.fallback_spent + excluded.fallback_spent,
    fallback_reserved = m.fallback_reserved + excluded.fallback_reserved
$$;
