-- Where an operation on many runs is under way: its workflow may have to be started. Safe to repeat.

DROP POLICY IF EXISTS upkeep ON run_operations;
CREATE POLICY upkeep ON run_operations FOR SELECT TO CURRENT_USER USING (true);

CREATE OR REPLACE FUNCTION organizations_operating() RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$ SELECT DISTINCT o.organization_id FROM public.run_operations o WHERE o.status = 'running' $$;
REVOKE ALL ON FUNCTION organizations_operating() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION organizations_operating() TO leadstats_app;
