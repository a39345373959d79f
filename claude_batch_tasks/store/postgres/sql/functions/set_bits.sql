-- Set or clear the bits at runs of positions; return how many have changed.
CREATE OR REPLACE FUNCTION claude_batch.set_bits(
  of_job bigint, of_batch integer, of_name text, firsts integer[], counts integer[], value boolean DEFAULT true
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  changed integer := 0;
  part record;
BEGIN
  -- In ascending order, as everybody does.
  FOR part IN SELECT * FROM claude_batch.make_masks(firsts, counts) LOOP
    changed := changed + claude_batch.change_segment(of_job, of_batch, of_name, part.segment, part.mask, value);
  END LOOP;
  RETURN changed;
END
$$;
