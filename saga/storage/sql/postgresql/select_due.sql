-- Which sagas are due and driven by nobody, oldest due first? Of those that would have crashed twice or more in a row
-- (suspects) only so many are chosen. Due times are never set at rest. A token never claims the same saga twice.
WITH
instant AS MATERIALIZED (
    SELECT {now} AS at
),
definition AS MATERIALIZED (
    SELECT DISTINCT name, saga_version FROM unnest($2::text[], $3::text[]) AS known (name, saga_version)
),
abandoned AS MATERIALIZED (
    SELECT n, id, version, fence, recoveries + 1 AS recoveries, due_at
    FROM {schema}.sagas, instant
    WHERE
        token IS NOT NULL
        AND lease_until <= at
        AND due_at <= at
        AND NOT at_rest
        AND (name, saga_version) IN (SELECT name, saga_version FROM definition)
        AND id <> ALL ($4::text[])
        AND NOT EXISTS (SELECT FROM {schema}.journal WHERE saga = sagas.n AND write_id = $5)
),
released AS MATERIALIZED (
    SELECT saga.*, suspect.is_suspect
    FROM
        instant
        CROSS JOIN definition
        CROSS JOIN (VALUES (false), (true)) AS suspect (is_suspect)
        CROSS JOIN LATERAL (
            SELECT n, id, version, fence, recoveries, wake_at
            FROM {schema}.sagas
            WHERE
                wake_at IS NOT NULL
                AND wake_at <= at
                AND name = definition.name
                AND saga_version = definition.saga_version
                AND (recoveries >= $6) = suspect.is_suspect
                AND id <> ALL ($4::text[])
                AND NOT EXISTS (SELECT FROM {schema}.journal WHERE saga = sagas.n AND write_id = $5)
            ORDER BY wake_at, id
            LIMIT CASE WHEN suspect.is_suspect THEN $7::integer ELSE $8::integer END
        ) AS saga
),
due AS (
    SELECT id, version, fence, recoveries, true AS expired, due_at, recoveries >= $6 AS is_suspect FROM abandoned
    UNION ALL
    SELECT id, version, fence, recoveries, false, wake_at, is_suspect FROM released
),
ordered AS (
    SELECT *, row_number() OVER (PARTITION BY is_suspect ORDER BY due_at, id) AS place FROM due
),
chosen AS (
    SELECT * FROM ordered WHERE NOT is_suspect OR place <= $7::integer ORDER BY due_at, id LIMIT $8::integer
)
SELECT
    at,
    (SELECT json_agg(json_build_array(id, version, fence, recoveries, expired) ORDER BY due_at, id)::text FROM chosen)
FROM instant
