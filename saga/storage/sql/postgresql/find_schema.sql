-- Is there a schema of this name?
SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = $1
