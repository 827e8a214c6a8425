-- Appends that end no saga, whose version and claim token are as expected; answers which of them were written, and when.
-- Each saga is looked up, and so locked, in the order of the arrays, which is that of the ids: two flushes never wait for
-- each other. `ttl` is NULL where the writer owns nothing: the claim stays as it is.
WITH
instant AS MATERIALIZED (
    SELECT {now} AS at
),
appended AS (
    UPDATE {schema}.sagas SET
        version = sagas.version + 1,
        status = new.status,
        attention = new.attention,
        at_rest = new.at_rest,
        recoveries = new.recoveries,
        due_at = instant.at + new.due_in,
        wake_at = CASE WHEN new.release OR sagas.token IS NULL THEN instant.at + new.due_in END,
        updated_at = instant.at,
        owner = CASE WHEN NOT new.release THEN sagas.owner END,
        token = CASE WHEN NOT new.release THEN sagas.token END,
        lease_until = CASE
            WHEN new.release THEN NULL
            WHEN new.ttl IS NULL THEN sagas.lease_until
            ELSE instant.at + new.ttl
        END
    FROM
        instant,
        unnest(
            $2::text[], $3::integer[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::boolean[], $9::integer[],
            $10::bigint[], $11::boolean[], $12::text[], $13::text[]
        ) WITH ORDINALITY AS new (
            id, expected, token, ttl, status, attention, at_rest, recoveries, due_in, release, write_id, events, place
        )
    WHERE sagas.id = new.id AND sagas.version = new.expected AND (new.token IS NULL OR sagas.token = new.token)
    RETURNING sagas.n, sagas.version, new.write_id, new.events, new.place
),
journalled AS (
    INSERT INTO {schema}.journal (saga, version, at, write_id, events)
    SELECT n, version, at, write_id, events FROM appended, instant
)
SELECT at, (SELECT array_agg(place) FROM appended) AS appended FROM instant
