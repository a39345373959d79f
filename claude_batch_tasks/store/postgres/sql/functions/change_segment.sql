-- Set or clear bits of one segment; return how many have changed.
CREATE OR REPLACE FUNCTION claude_batch.change_segment(
  of_job bigint, of_batch integer, of_name text, of_segment integer, mask bit, value boolean
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  old bit(4096);
  changed integer;
BEGIN
  LOOP
    SELECT b.bits INTO old FROM claude_batch.bits b
    WHERE b.job = of_job AND b.batch = of_batch AND b.name = of_name AND b.segment = of_segment
    FOR UPDATE;
    EXIT WHEN FOUND;
    IF NOT value THEN
      RETURN 0;
    END IF;
    changed := claude_batch.count_bits(mask);
    INSERT INTO claude_batch.bits (job, batch, name, segment, bits, ones)
    VALUES (of_job, of_batch, of_name, of_segment, mask, changed)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN changed;
    END IF;
  END LOOP;
  IF value THEN
    mask := mask & ~ old;
  ELSE
    mask := mask & old;
  END IF;
  changed := claude_batch.count_bits(mask);
  IF changed > 0 THEN
    UPDATE claude_batch.bits b
    SET bits = b.bits # mask, ones = b.ones + CASE WHEN value THEN changed ELSE - changed END
    WHERE b.job = of_job AND b.batch = of_batch AND b.name = of_name AND b.segment = of_segment;
  END IF;
  RETURN changed;
END
$$;
