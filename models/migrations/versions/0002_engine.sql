-- What listens to contacts' changes, and what upkeep may see of other organizations. Safe to repeat.

-- Statement by statement, not row by row: an import of 100,000 contacts notes them in one INSERT. Ordered, so that two of them
-- wait for each other and do not deadlock.
CREATE OR REPLACE FUNCTION note_changed_contacts() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
  INSERT INTO contact_changes (organization_id, contact_id)
  SELECT DISTINCT n.organization_id, n.id FROM new_rows n JOIN organizations o ON o.id = n.organization_id
  WHERE o.listening ORDER BY 1, 2 ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION note_changed_consents() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
  INSERT INTO contact_changes (organization_id, contact_id)
  SELECT DISTINCT n.organization_id, n.contact_id FROM new_rows n JOIN organizations o ON o.id = n.organization_id
  WHERE o.listening ORDER BY 1, 2 ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;

DROP TRIGGER IF EXISTS note_new ON contacts;
DROP TRIGGER IF EXISTS note_changed ON contacts;
DROP TRIGGER IF EXISTS note_new ON consents;
CREATE TRIGGER note_new AFTER INSERT ON contacts REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION note_changed_contacts();
CREATE TRIGGER note_changed AFTER UPDATE ON contacts REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION note_changed_contacts();
CREATE TRIGGER note_new AFTER INSERT ON consents REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION note_changed_consents();

-- Where something waits to be routed or told: a few small partial indexes, however many organizations there are.
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['events', 'contact_changes', 'run_messages', 'entries', 'journey_triggers', 'waits', 'publish_plans']
  LOOP
    EXECUTE format('DROP POLICY IF EXISTS upkeep ON %I', t);
    EXECUTE format('CREATE POLICY upkeep ON %I FOR SELECT TO CURRENT_USER USING (true)', t);
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION organizations_to_route() RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$ SELECT e.organization_id FROM public.events e WHERE e.routed_at IS NULL
   UNION SELECT c.organization_id FROM public.contact_changes c
   UNION SELECT m.organization_id FROM public.run_messages m
   UNION SELECT n.organization_id FROM public.entries n WHERE n.outcome = 'pending'
   UNION SELECT t.organization_id FROM public.journey_triggers t WHERE t.event_name IS NULL AND (t.timed OR t.baselined_at IS NULL) AND t.active
   UNION SELECT w.organization_id FROM public.waits w WHERE w.state = 'open' AND w.has_condition
   UNION SELECT p.organization_id FROM public.publish_plans p WHERE p.status = 'executing' $$;
REVOKE ALL ON FUNCTION organizations_to_route() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION organizations_to_route() TO leadstats_app;

-- As in 0001_security.sql, and campaigns that start later: until their workflow has looked at them, or their Temporal schedule exists.
CREATE OR REPLACE FUNCTION organizations_with_unstarted(p_older_than interval) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$ SELECT r.organization_id FROM public.runs r
    WHERE r.campaign_id IS NULL AND r.status = 'active' AND r.sequence = 0 AND r.created_at < now() - p_older_than
   UNION
   SELECT c.organization_id FROM public.campaigns c
    WHERE c.status IN ('starting', 'scheduled') AND c.planned_at IS NULL AND c.created_at < now() - p_older_than $$;
