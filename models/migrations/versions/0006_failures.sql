-- Row-level security of the new tables, as 0001_security.sql gives it to all, and what upkeep may see of other organizations' brakings.
-- Safe to repeat.

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['failure_groups', 'brake_counts', 'brakings']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('DROP POLICY IF EXISTS one_organization ON %I', t);
    EXECUTE format('CREATE POLICY one_organization ON %I USING (organization_id = current_organization()) WITH CHECK (organization_id = current_organization())', t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO leadstats_app', t);
  END LOOP;
END $$;

DROP POLICY IF EXISTS upkeep ON brakings;
CREATE POLICY upkeep ON brakings FOR SELECT TO CURRENT_USER USING (true);

-- Where a journey or campaign was braked and its workflow may be missing: one small partial index.
CREATE OR REPLACE FUNCTION organizations_with_brakings() RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$ SELECT DISTINCT b.organization_id FROM public.brakings b WHERE b.finished_at IS NULL $$;
REVOKE ALL ON FUNCTION organizations_with_brakings() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION organizations_with_brakings() TO leadstats_app;
