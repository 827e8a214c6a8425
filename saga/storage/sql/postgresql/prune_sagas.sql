-- Deletes sagas at rest that last grew before an instant, oldest first, with their journals. No saga was created after
-- it last grew.
WITH
instant AS MATERIALIZED (
    SELECT {now} - $2::bigint AS before
),
old AS MATERIALIZED (
    SELECT saga.n
    FROM
        instant
        CROSS JOIN unnest($3::text[]) AS wanted (status)
        CROSS JOIN LATERAL (
            SELECT n, created_at, id
            FROM {schema}.sagas
            WHERE status = wanted.status AND created_at < before AND updated_at < before
            ORDER BY created_at, id
            LIMIT $4::integer
        ) AS saga
    ORDER BY saga.created_at, saga.id
    LIMIT $4::integer
),
locked AS MATERIALIZED (
    SELECT saga.*
    FROM
        old
        CROSS JOIN instant
        CROSS JOIN LATERAL (
            SELECT n, name, status, attention IS NOT NULL OR status = 'failed' AS in_need
            FROM {schema}.sagas
            WHERE n = old.n AND status = ANY ($3::text[]) AND updated_at < before
            FOR UPDATE SKIP LOCKED
        ) AS saga
),
forgotten AS (
    DELETE FROM {schema}.journal USING locked WHERE saga = locked.n
),
deleted AS (
    DELETE FROM {schema}.sagas USING locked WHERE sagas.n = locked.n
),
counted AS (
    INSERT INTO {schema}.counts (name, status, in_need, sagas)
    SELECT name, status, in_need, -count(*)
    FROM locked
    WHERE status IN ('completed', 'rolled_back')
    GROUP BY name, status, in_need
)
SELECT count(*) FROM locked
