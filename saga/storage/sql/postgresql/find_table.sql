-- Is there a table of migrations? Asked of the catalogue itself: to_regclass() answers from a cache of the session, which
-- may not know yet what another process has made while this one waited for it.
SELECT count(*) FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'migrations'
