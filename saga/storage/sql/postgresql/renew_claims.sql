-- Extends the claims whose token is the current one, and answers at which versions their sagas are.
WITH
locked AS MATERIALIZED (
    SELECT saga.n, new.ttl
    FROM
        unnest($2::text[], $3::text[], $4::bigint[]) AS new (id, token, ttl)
        CROSS JOIN LATERAL (
            SELECT n FROM {schema}.sagas WHERE id = new.id AND token = new.token FOR NO KEY UPDATE
        ) AS saga
),
instant AS MATERIALIZED (
    SELECT {now} AS at
    FROM (SELECT count(*) FROM locked) AS held
),
renewed AS (
    UPDATE {schema}.sagas SET lease_until = at + ttl
    FROM locked, instant
    WHERE sagas.n = locked.n
    RETURNING id, token, version
)
SELECT json_agg(json_build_array(id, token, version))::text FROM renewed
