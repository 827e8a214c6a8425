-- Requests move the version and wake what is not at rest; everything else stays as it is. The version that each expects
-- is the one at which its write id was found to be new.
WITH
locked AS MATERIALIZED (
    SELECT new.*, saga.n
    FROM
        unnest($2::text[], $3::integer[], $4::text[], $5::text[])
            WITH ORDINALITY AS new (id, expected, write_id, events, place)
        CROSS JOIN LATERAL (
            SELECT n FROM {schema}.sagas WHERE id = new.id AND version = new.expected FOR NO KEY UPDATE
        ) AS saga
),
instant AS MATERIALIZED (
    SELECT {now} AS at
    FROM (SELECT count(*) FROM locked) AS held
),
requested AS (
    UPDATE {schema}.sagas SET
        version = version + 1,
        due_at = CASE WHEN at_rest THEN due_at ELSE at END,
        wake_at = CASE WHEN at_rest OR token IS NOT NULL THEN wake_at ELSE at END,
        updated_at = at
    FROM locked, instant
    WHERE sagas.n = locked.n
),
journalled AS (
    INSERT INTO {schema}.journal (saga, version, at, write_id, events)
    SELECT n, expected + 1, at, write_id, events FROM locked, instant
)
SELECT at, (SELECT array_agg(place) FROM locked) AS requested FROM instant
