-- As append_sagas.sql, but for any appends, and for new sagas; counts those that end. What was locked is what is written:
-- an ended saga to which something is appended must not be counted twice.
WITH
locked AS MATERIALIZED (
    SELECT new.*, saga.n, saga.name, saga.old_status, saga.old_need, new.attention IS NOT NULL OR new.status = 'failed' AS in_need
    FROM
        unnest(
            $2::text[], $3::integer[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::boolean[], $9::integer[],
            $10::bigint[], $11::boolean[], $12::text[], $13::text[]
        ) WITH ORDINALITY AS new (
            id, expected, token, ttl, status, attention, at_rest, recoveries, due_in, release, write_id, events, place
        )
        CROSS JOIN LATERAL (
            SELECT n, name, status AS old_status, attention IS NOT NULL OR status = 'failed' AS old_need
            FROM {schema}.sagas
            WHERE id = new.id AND version = new.expected AND (new.token IS NULL OR token = new.token)
            FOR NO KEY UPDATE
        ) AS saga
),
-- Taken once all locks are held.
instant AS MATERIALIZED (
    SELECT {now} AS at
    FROM (SELECT count(*) FROM locked) AS held
),
appended AS (
    UPDATE {schema}.sagas SET
        version = sagas.version + 1,
        status = locked.status,
        attention = locked.attention,
        at_rest = locked.at_rest,
        recoveries = locked.recoveries,
        due_at = instant.at + locked.due_in,
        wake_at = CASE WHEN locked.release OR sagas.token IS NULL THEN instant.at + locked.due_in END,
        updated_at = instant.at,
        owner = CASE WHEN NOT locked.release THEN sagas.owner END,
        token = CASE WHEN NOT locked.release THEN sagas.token END,
        lease_until = CASE
            WHEN locked.release THEN NULL
            WHEN locked.ttl IS NULL THEN sagas.lease_until
            ELSE instant.at + locked.ttl
        END
    FROM locked, instant
    WHERE sagas.n = locked.n
),
fresh AS MATERIALIZED (
    SELECT *, attention IS NOT NULL OR status = 'failed' AS in_need
    FROM unnest(
        $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::boolean[], $20::integer[], $21::integer[],
        $22::text[], $23::text[], $24::bigint[], $25::bigint[], $26::text[], $27::text[]
    ) WITH ORDINALITY AS fresh (
        id, name, saga_version, status, attention, at_rest, fence, recoveries, owner, token, ttl, due_in, write_id, events, place
    )
),
created AS (
    INSERT INTO {schema}.sagas (
        id, name, saga_version, status, attention, at_rest, version, fence, recoveries, owner, token, lease_until,
        due_at, wake_at, created_at, updated_at
    )
    SELECT
        id, name, saga_version, status, attention, at_rest, 1, fence, recoveries, owner, token, at + ttl,
        at + due_in, CASE WHEN token IS NULL THEN at + due_in END, at, at
    FROM fresh, instant
    ON CONFLICT (id) DO NOTHING
    RETURNING n, id
),
journalled AS (
    INSERT INTO {schema}.journal (saga, version, at, write_id, events)
    SELECT locked.n, locked.expected + 1, instant.at, locked.write_id, locked.events
    FROM locked, instant
    UNION ALL
    SELECT created.n, 1, instant.at, fresh.write_id, fresh.events
    FROM created JOIN fresh USING (id), instant
),
counted AS (
    INSERT INTO {schema}.counts (name, status, in_need, sagas)
    SELECT name, status, in_need, sum(sagas)
    FROM (
        SELECT name, old_status AS status, old_need AS in_need, -1 AS sagas
        FROM locked
        WHERE old_status IN ('completed', 'rolled_back')
        UNION ALL
        SELECT name, status, in_need, 1
        FROM locked
        WHERE status IN ('completed', 'rolled_back')
        UNION ALL
        SELECT name, status, in_need, 1
        FROM created JOIN fresh USING (id)
        WHERE status IN ('completed', 'rolled_back')
    ) AS change
    GROUP BY name, status, in_need
    HAVING sum(sagas) <> 0
)
SELECT
    at,
    (SELECT array_agg(place) FROM locked) AS appended,
    (SELECT array_agg(fresh.place) FROM created JOIN fresh USING (id)) AS created
FROM instant
