"""The SQL of ``postgres_policies.py`` as it is printed, with ``@name@`` where something is filled in.

Whatever is filled in is an identifier or a literal that was quoted before.
"""

from __future__ import annotations

import re
from typing import Final

OWNER: Final = "toucan_guard_owner"

HEAD: Final = """\
-- Row-level security for the policy @version@, written by `toucan-guard rls-sql`.
-- Run it as a superuser, or as the tables' owner with CREATEROLE; it can be run again at any time.
-- It holds no secret: the key comes with `toucan-guard rls-sql --set-key`.
-- It waits for what reads the tables now, and whoever comes later waits behind it: in a busy database, give it
-- PGOPTIONS='-c lock_timeout=500ms', and run it again where it gives up. Not while an index is built concurrently.

BEGIN;

"""

# Two that write at once would each drop what the other has made, hence the lock. Who is no superuser has to be a member
# of the owner to give something to it; LEAVE_OWNER ends that.
ROLES: Final = """\
DO $toucan_guard$
BEGIN
  PERFORM pg_advisory_xact_lock(7867623);
  IF current_setting('server_version_num')::integer < 150000 THEN
    RAISE EXCEPTION 'toucan_guard needs PostgreSQL 15 or newer';
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'toucan_guard_owner') THEN
    CREATE ROLE toucan_guard_owner NOLOGIN NOINHERIT;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = @app_text@) THEN
    CREATE ROLE @app@ NOLOGIN;
  END IF;
  IF EXISTS (
    SELECT FROM pg_roles WHERE pg_has_role(@app_text@, oid, 'MEMBER') AND (rolsuper OR rolbypassrls)
  ) THEN
    RAISE EXCEPTION 'the role % can go round row-level security: give the app another one', @app_text@;
  END IF;
  IF pg_has_role(@app_text@, 'toucan_guard_owner', 'MEMBER') THEN
    RAISE EXCEPTION 'the role % can read the context keys: take it out of toucan_guard_owner', @app_text@;
  END IF;
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    EXECUTE format('GRANT toucan_guard_owner TO %I', current_user);
  END IF;
END
$toucan_guard$"""

# Its policies would be the app's as well.
FULL_ACCESS: Final = """\
DO $toucan_guard$
BEGIN
  IF pg_has_role(@app_text@, @role_text@, 'MEMBER') THEN
    RAISE EXCEPTION 'the role % is a member of %, which sees every row: take it out', @app_text@, @role_text@;
  END IF;
END
$toucan_guard$"""

LEAVE_OWNER: Final = """\
DO $toucan_guard$
BEGIN
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    EXECUTE format('REVOKE toucan_guard_owner FROM %I', current_user);
  END IF;
END
$toucan_guard$"""

KEY_TABLE: Final = (
    "CREATE SCHEMA IF NOT EXISTS toucan_guard AUTHORIZATION toucan_guard_owner",
    "ALTER SCHEMA toucan_guard OWNER TO toucan_guard_owner",
    "REVOKE ALL ON SCHEMA toucan_guard FROM PUBLIC, @app@",
    "GRANT USAGE ON SCHEMA toucan_guard TO @app@",
    """\
CREATE TABLE IF NOT EXISTS toucan_guard.context_key (
  id text PRIMARY KEY,
  inner_pad bytea NOT NULL,
  outer_pad bytea NOT NULL,
  added timestamp with time zone NOT NULL DEFAULT now()
)""",
    # Only where something has to change: every transaction that shows rows reads this table, and would wait for us with
    # other tables in its hands that we are waiting for.
    """\
DO $toucan_guard$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid AND polname = 'toucan_guard_owner'
    WHERE pg_class.oid = 'toucan_guard.context_key'::regclass AND relowner = 'toucan_guard_owner'::regrole
      AND relrowsecurity AND relforcerowsecurity
      AND polpermissive AND polcmd = '*' AND polroles = ARRAY['toucan_guard_owner'::regrole::oid]
      AND pg_get_expr(polqual, polrelid) = '(id IS NOT NULL)'
      AND pg_get_expr(polwithcheck, polrelid) = '(id IS NOT NULL)'
  ) THEN
    ALTER TABLE toucan_guard.context_key OWNER TO toucan_guard_owner;
    ALTER TABLE toucan_guard.context_key ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    DROP POLICY IF EXISTS toucan_guard_owner ON toucan_guard.context_key;
    CREATE POLICY toucan_guard_owner ON toucan_guard.context_key TO toucan_guard_owner
      USING (id IS NOT NULL) WITH CHECK (id IS NOT NULL);
  END IF;
END
$toucan_guard$""",
    "REVOKE ALL ON TABLE toucan_guard.context_key FROM PUBLIC, @app@",
)

# The setting is <key id>.<signature>.<body>, the first two in 16 and 64 hex digits (postgres_context.py).
CONTEXT: Final = """\
CREATE OR REPLACE FUNCTION toucan_guard.context() RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $toucan_guard$
DECLARE
  given text := current_setting('toucan_guard.context', true);
  body bytea;
  key record;
  expected text;
  context jsonb;
BEGIN
  IF given IS NULL OR given = '' THEN
    RETURN NULL;
  END IF;
  SELECT inner_pad, outer_pad INTO key FROM toucan_guard.context_key WHERE id = left(given, 16);
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  body := convert_to(substr(given, 83), 'UTF8');
  expected := encode(sha256(key.outer_pad || sha256(key.inner_pad || body)), 'hex');
  -- Both are hashed once more with the key, so that the time of the comparison tells nothing of the signature.
  IF sha256(key.outer_pad || convert_to(substr(given, 17, 66), 'UTF8'))
    IS DISTINCT FROM sha256(key.outer_pad || convert_to('.' || expected || '.', 'UTF8'))
  THEN
    RETURN NULL;
  END IF;
  context := convert_from(body, 'UTF8')::jsonb;
  IF (context ->> '$end')::numeric <= extract(epoch FROM clock_timestamp()) THEN
    RETURN NULL;
  END IF;
@backend@  RETURN context;
END
$toucan_guard$"""

BACKEND: Final = """\
  IF (context ->> '$pid')::integer IS DISTINCT FROM pg_backend_pid() THEN
    RETURN NULL;
  END IF;
"""

CONTEXT_RIGHTS: Final = (
    "ALTER FUNCTION toucan_guard.context() OWNER TO toucan_guard_owner",
    "REVOKE ALL ON FUNCTION toucan_guard.context() FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION toucan_guard.context() TO @app@",
)

# What is not written again below is gone then, and its table closed. Views go before the tables that are read through
# them. Then every table is locked that was protected or will be, tables before their partitions, whoever of them had a
# policy before: so does whoever reads them, and nobody waits for the other in a circle.
DROP: Final = r"""DO $toucan_guard$
DECLARE
  old record;
BEGIN
  FOR old IN
    SELECT oid::regclass AS relation FROM pg_class
    WHERE relkind = 'v' AND relnamespace = 'toucan_guard'::regnamespace ORDER BY oid
  LOOP
    EXECUTE format('DROP VIEW %s', old.relation);
  END LOOP;
  FOR old IN
    WITH RECURSIVE tree AS (
      SELECT polrelid AS oid FROM pg_policy
      WHERE polname LIKE 'toucan\_guard\_%' AND polrelid <> 'toucan_guard.context_key'::regclass
      UNION SELECT to_regclass(name)::oid FROM unnest(ARRAY[@tables@]::text[]) AS name
      UNION SELECT inhrelid FROM tree JOIN pg_inherits ON inhparent = tree.oid
    ), above AS (
      SELECT oid, oid AS top, ARRAY[oid] AS path FROM tree
      UNION ALL SELECT oid, inhparent, inhparent || path FROM above JOIN pg_inherits ON inhrelid = top
    ), placed AS (
      SELECT DISTINCT ON (oid) oid, path FROM above ORDER BY oid, cardinality(path) DESC, path
    )
    SELECT placed.oid::regclass AS relation
    FROM placed JOIN pg_class ON pg_class.oid = placed.oid AND relkind IN ('r', 'p')
    ORDER BY cardinality(path), path
  LOOP
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', old.relation);
  END LOOP;
  FOR old IN
    SELECT polname, polrelid::regclass AS relation FROM pg_policy
    WHERE polname LIKE 'toucan\_guard\_%' AND polrelid <> 'toucan_guard.context_key'::regclass
  LOOP
    EXECUTE format('DROP POLICY %I ON %s', old.polname, old.relation);
    EXECUTE format('REVOKE ALL ON %s FROM %I', old.relation, @app_text@);
  END LOOP;
END
$toucan_guard$"""

TABLE: Final = """\
-- @comment@
DO $toucan_guard$
BEGIN
  IF (SELECT relkind FROM pg_class WHERE oid = @table_text@::regclass) NOT IN ('r', 'p') THEN
    RAISE EXCEPTION '% is no table, and only tables have row-level security', @table_text@;
  END IF;
  IF EXISTS (
    SELECT FROM pg_class WHERE oid = @table_text@::regclass AND pg_has_role(@app_text@, relowner, 'MEMBER')
  ) THEN
    RAISE EXCEPTION 'the role % owns %, and could take its policies away', @app_text@, @table_text@;
  END IF;
END
$toucan_guard$"""

COLUMNS: Final = """\
DO $toucan_guard$
DECLARE
  need record;
  actual record;
BEGIN
  FOR need IN SELECT * FROM (VALUES
    @needs@
  ) AS needs (name, fitting) LOOP
    SELECT @type@ AS type, coalesce(collisdeterministic, true) AS exact
    INTO actual FROM pg_attribute LEFT JOIN pg_collation ON pg_collation.oid = attcollation
    WHERE attrelid = @table_text@::regclass AND attname = need.name AND attnum > 0 AND NOT attisdropped;
    IF NOT FOUND THEN
      RAISE EXCEPTION '% has no column %', @table_text@, need.name;
    ELSIF actual.type <> ALL (need.fitting) THEN
      RAISE EXCEPTION '%.% is %, and its rule compares %',
        @table_text@, need.name, actual.type, array_to_string(need.fitting, ' or ');
    ELSIF need.fitting IS NOT NULL AND NOT actual.exact THEN
      RAISE EXCEPTION '%.% has a collation for which different texts are equal', @table_text@, need.name;
    END IF;
  END LOOP;
END
$toucan_guard$"""

# A domain is what lies below it.
TYPE: Final = """\
(
      WITH RECURSIVE base AS (
        SELECT atttypid AS type UNION ALL SELECT typbasetype FROM base JOIN pg_type ON oid = type WHERE typtype = 'd'
      ) SELECT type::regtype::text FROM base JOIN pg_type ON oid = type WHERE typtype <> 'd'
    )"""

TYPE_OF_COLUMN: Final = (
    "(SELECT @type@ FROM pg_attribute WHERE attrelid = @table_text@::regclass AND attname = @column_text@)"
)

FIRST_COLUMN: Final = """\
(SELECT quote_ident(attname) FROM pg_attribute
    WHERE attrelid = @table_text@::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum LIMIT 1)"""

POLICIES: Final = """\
DO $toucan_guard$
DECLARE
  relation regclass;
  rule text := @rule@;
BEGIN
  -- The table, its partitions, and whatever else inherits from it.
  FOR relation IN
    WITH RECURSIVE tree AS (
      SELECT @table_text@::regclass::oid AS oid, ARRAY[@table_text@::regclass::oid] AS path
      UNION ALL SELECT inhrelid, path || inhrelid FROM tree JOIN pg_inherits ON inhparent = tree.oid
    ), placed AS (
      SELECT DISTINCT ON (oid) oid, path FROM tree ORDER BY oid, cardinality(path), path
    )
    SELECT placed.oid FROM placed JOIN pg_class ON pg_class.oid = placed.oid AND relkind IN ('r', 'p')
    ORDER BY cardinality(path), path
  LOOP
    IF EXISTS (SELECT FROM pg_policy WHERE polrelid = relation AND polname = 'toucan_guard_select') THEN
      RAISE EXCEPTION 'the policy names % and a table that it is a part of, whose rules are its own: name one of them',
        relation;
    END IF;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', relation);
@policies@  END LOOP;
END
$toucan_guard$"""

POLICY: Final = "    EXECUTE format(@policy_text@, relation, rule);\n"

SEQUENCES: Final = """\
DO $toucan_guard$
DECLARE
  sequence regclass;
BEGIN
  FOR sequence IN
    SELECT objid FROM pg_depend JOIN pg_class ON pg_class.oid = objid AND relkind = 'S'
    WHERE refobjid = @table_text@::regclass AND deptype = 'a'
  LOOP
    EXECUTE format('GRANT USAGE ON SEQUENCE %s TO %I', sequence, @app_text@);
  END LOOP;
END
$toucan_guard$"""

VIEW: Final = (
    """\
CREATE VIEW @view@ WITH (security_invoker = true, security_barrier = true) AS
SELECT @columns@ FROM @table@""",
    "ALTER VIEW @view@ OWNER TO toucan_guard_owner",
    "GRANT SELECT ON @view@ TO @app@",
)

NO_TEMPORARY: Final = """\
DO $toucan_guard$
BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC, %I', current_database(), @app_text@);
END
$toucan_guard$"""

_BLANK: Final = re.compile(r"@(\w+)@")


def fill(template: str, **parts: str) -> str:
    """Fill the blanks; what is filled in is not read again."""
    return _BLANK.sub(lambda blank: parts[blank[1]], template)
