-- Lets one process at a time look for what it may claim, in this transaction; see `lock_timeout` for how long it waits.
SELECT pg_advisory_xact_lock(hashtextextended('saga claims ' || $1, 0))
