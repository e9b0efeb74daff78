-- As in 0002_engine.sql, and replays, whatever campaign they belong to. Safe to repeat.
CREATE OR REPLACE FUNCTION organizations_with_unstarted(p_older_than interval) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$ SELECT r.organization_id FROM public.runs r
    WHERE r.campaign_id IS NULL AND r.status = 'active' AND r.sequence = 0 AND r.created_at < now() - p_older_than
   UNION
   SELECT r.organization_id FROM public.runs r
    WHERE r.replay_of IS NOT NULL AND r.status = 'active' AND r.sequence = 0 AND r.created_at < now() - p_older_than
   UNION
   SELECT c.organization_id FROM public.campaigns c
    WHERE c.status IN ('starting', 'scheduled') AND c.planned_at IS NULL AND c.created_at < now() - p_older_than $$;
