-- Reserve the list call of an account for so many seconds, again if the owner has it; false: another has it.
CREATE OR REPLACE FUNCTION claude_batch.lock_list_call(of_account text, owner text, seconds double precision)
RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
  IF claude_batch.set_flag('listing:' || of_account, convert_to(owner, 'UTF8'), seconds) THEN
    DELETE FROM claude_batch.list_call_askers WHERE account = of_account;
    RETURN true;
  END IF;
  UPDATE claude_batch.flags SET expires_at = claude_batch.clock() + seconds
  WHERE name = 'listing:' || of_account AND value = convert_to(owner, 'UTF8');
  RETURN FOUND;
END
$$;
