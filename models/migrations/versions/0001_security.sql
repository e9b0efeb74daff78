-- Row-level security and append-only guards. Runs after the tables exist, and again (it is safe to repeat) in any
-- migration that adds a table. The role leadstats_app is made by models/migrations/run.py.

CREATE OR REPLACE FUNCTION current_organization() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT nullif(current_setting('leadstats.organization_id', true), '')::uuid $$;

GRANT USAGE ON SCHEMA public TO leadstats_app;

DO $$
DECLARE t text;
BEGIN
  -- Every table with an organization_id: visible and writable only inside that organization.
  FOR t IN SELECT c.table_name FROM information_schema.columns c
           JOIN information_schema.tables b USING (table_schema, table_name)
           WHERE c.table_schema = 'public' AND c.column_name = 'organization_id' AND b.table_type = 'BASE TABLE'
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('DROP POLICY IF EXISTS one_organization ON %I', t);
    EXECUTE format('CREATE POLICY one_organization ON %I USING (organization_id = current_organization()) WITH CHECK (organization_id = current_organization())', t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO leadstats_app', t);
  END LOOP;
  -- Append-only tables.
  FOREACH t IN ARRAY ARRAY['audit_entries', 'consents', 'template_versions', 'journey_versions', 'decisions', 'run_events']
  LOOP
    EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %I FROM leadstats_app', t);
    EXECUTE format('DROP TRIGGER IF EXISTS append_only ON %I', t);
    EXECUTE format('DROP TRIGGER IF EXISTS append_only_truncate ON %I', t);
  END LOOP;
END $$;

-- Organizations: one sees only oneself.
ALTER TABLE organizations ENABLE ROW LEVEL SECURITY;
ALTER TABLE organizations FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS itself ON organizations;
CREATE POLICY itself ON organizations USING (id = current_organization()) WITH CHECK (id = current_organization());
GRANT SELECT, INSERT, UPDATE ON organizations TO leadstats_app;

-- Users: visible through a membership of the current organization.
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS colleagues ON users;
CREATE POLICY colleagues ON users FOR SELECT
  USING (EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = users.id AND m.organization_id = current_organization()));
DROP POLICY IF EXISTS joins ON users;
CREATE POLICY joins ON users FOR INSERT WITH CHECK (true);
DROP POLICY IF EXISTS changes ON users;
CREATE POLICY changes ON users FOR UPDATE
  USING (EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = users.id AND m.organization_id = current_organization()));
GRANT SELECT, INSERT, UPDATE ON users TO leadstats_app;

-- A superuser or owner is refused too: the record of what happened does not change.
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation'; END $$;
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['audit_entries', 'consents', 'template_versions', 'journey_versions', 'decisions', 'run_events']
  LOOP
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()', t);
    EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', t);
  END LOOP;
END $$;

-- Failed logins belong to nobody yet: keyed hashes and times only.
GRANT SELECT, INSERT, DELETE ON login_attempts TO leadstats_app;

-- The end of a chain only moves forward; it is never taken away.
REVOKE DELETE, TRUNCATE ON audit_heads FROM leadstats_app;

-- Who somebody is, asked before an organization is known. These run as the owner, who is also bound by row-level
-- security (FORCE), hence the policies for the owner alone. Each answers one question and nothing more.
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['organizations', 'users', 'memberships', 'sessions', 'api_keys']
  LOOP
    EXECUTE format('DROP POLICY IF EXISTS who_is_it ON %I', t);
    EXECUTE format('CREATE POLICY who_is_it ON %I TO CURRENT_USER USING (true)', t);
  END LOOP;
  FOREACH t IN ARRAY ARRAY['runs', 'campaigns']
  LOOP
    EXECUTE format('DROP POLICY IF EXISTS upkeep ON %I', t);
    EXECUTE format('CREATE POLICY upkeep ON %I FOR SELECT TO CURRENT_USER USING (true)', t);
  END LOOP;
END $$;

-- `leadstats doctor` asks, as the owner, which connections are broken.
DROP POLICY IF EXISTS doctor ON connections;
CREATE POLICY doctor ON connections FOR SELECT TO CURRENT_USER USING (true);

CREATE OR REPLACE FUNCTION authenticate_api_key(p_secret_hash bytea)
RETURNS TABLE (api_key_id uuid, organization_id uuid, organization_status text, scopes text[], created_by uuid, creator_role text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$
DECLARE v_valid uuid;
BEGIN
  SELECT k.id INTO v_valid
    FROM public.api_keys k
    LEFT JOIN public.users u ON u.id = k.created_by
   WHERE k.secret_hash = p_secret_hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
     AND u.disabled_at IS NULL;
  UPDATE public.api_keys k SET last_used_at = now()
   WHERE k.id = v_valid AND (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute');
  RETURN QUERY
  SELECT k.id, k.organization_id, o.status::text, k.scopes, k.created_by, m.role::text
    FROM public.api_keys k
    JOIN public.organizations o ON o.id = k.organization_id
    LEFT JOIN public.memberships m ON m.organization_id = k.organization_id AND m.user_id = k.created_by
   WHERE k.id = v_valid;
END $$;

CREATE OR REPLACE FUNCTION authenticate_session(p_token_hash bytea)
RETURNS TABLE (session_id uuid, organization_id uuid, organization_status text, user_id uuid, role text, csrf_hash bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$
BEGIN
  UPDATE public.sessions s SET last_seen_at = now()
   WHERE s.token_hash = p_token_hash AND s.expires_at > now() AND s.last_seen_at < now() - interval '1 minute';
  RETURN QUERY
  SELECT s.id, s.organization_id, o.status::text, s.user_id, m.role::text, s.csrf_hash
    FROM public.sessions s
    JOIN public.organizations o ON o.id = s.organization_id
    JOIN public.users u ON u.id = s.user_id AND u.disabled_at IS NULL
    JOIN public.memberships m ON m.organization_id = s.organization_id AND m.user_id = s.user_id
   WHERE s.token_hash = p_token_hash AND s.expires_at > now();
END $$;

CREATE OR REPLACE FUNCTION find_login(p_email text)
RETURNS TABLE (user_id uuid, password_hash text, disabled boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$ SELECT u.id, u.password_hash::text, u.disabled_at IS NOT NULL FROM public.users u WHERE lower(u.email) = lower(p_email) $$;

CREATE OR REPLACE FUNCTION login_organizations(p_user_id uuid)
RETURNS TABLE (organization_id uuid, slug text, name text, role text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$ SELECT o.id, o.slug::text, o.name::text, m.role::text FROM public.memberships m
   JOIN public.organizations o ON o.id = m.organization_id WHERE m.user_id = p_user_id ORDER BY o.slug $$;

-- Where upkeep has something to start: one look at two small indexes, however many organizations there are.
CREATE OR REPLACE FUNCTION organizations_with_unstarted(p_older_than interval) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$ SELECT r.organization_id FROM public.runs r
    WHERE r.campaign_id IS NULL AND r.status = 'active' AND r.sequence = 0 AND r.created_at < now() - p_older_than
   UNION
   SELECT c.organization_id FROM public.campaigns c WHERE c.status = 'starting' AND c.created_at < now() - p_older_than $$;

CREATE OR REPLACE FUNCTION organization_id_by_slug(p_slug text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS
$$ SELECT o.id FROM public.organizations o WHERE o.slug = p_slug $$;

DO $$
DECLARE f text;
BEGIN
  FOREACH f IN ARRAY ARRAY['authenticate_api_key(bytea)', 'authenticate_session(bytea)', 'find_login(text)',
                           'login_organizations(uuid)', 'organization_id_by_slug(text)', 'organizations_with_unstarted(interval)']
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO leadstats_app', f);
  END LOOP;
END $$;
