-- Row-level security of what watches over the engine. Safe to repeat.

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['findings', 'organization_checks', 'workflow_histories']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('DROP POLICY IF EXISTS one_organization ON %I', t);
    EXECUTE format('CREATE POLICY one_organization ON %I USING (organization_id = current_organization()) WITH CHECK (organization_id = current_organization())', t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO leadstats_app', t);
  END LOOP;
END $$;

-- A closed workflow's history does not change.
REVOKE UPDATE, DELETE, TRUNCATE ON workflow_histories FROM leadstats_app;
DROP TRIGGER IF EXISTS append_only ON workflow_histories;
DROP TRIGGER IF EXISTS append_only_truncate ON workflow_histories;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON workflow_histories FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON workflow_histories FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Times of a Temporal namespace; nobody's rows.
GRANT SELECT, INSERT, UPDATE ON archive_marks TO leadstats_app;

-- `leadstats doctor` counts open findings, as the owner.
DROP POLICY IF EXISTS doctor ON findings;
CREATE POLICY doctor ON findings FOR SELECT TO CURRENT_USER USING (true);
DROP POLICY IF EXISTS doctor ON organization_checks;
CREATE POLICY doctor ON organization_checks FOR SELECT TO CURRENT_USER USING (true);

-- Whose rows are to be compared with Temporal.
CREATE OR REPLACE FUNCTION organizations_to_reconcile() RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$ SELECT o.id FROM public.organizations o ORDER BY o.id $$;
REVOKE ALL ON FUNCTION organizations_to_reconcile() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION organizations_to_reconcile() TO leadstats_app;
