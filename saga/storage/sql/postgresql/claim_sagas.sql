-- Claims those of the sagas that were just found to be due which still are; whoever writes to one now has it.
WITH
locked AS MATERIALIZED (
    SELECT new.*, saga.n
    FROM
        unnest($6::text[], $7::integer[], $8::integer[], $9::text[]) AS new (id, version, recoveries, events)
        CROSS JOIN LATERAL (
            SELECT n
            FROM {schema}.sagas
            WHERE id = new.id AND version = new.version AND (token IS NULL OR lease_until <= $1)
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS saga
),
claimed AS (
    UPDATE {schema}.sagas SET
        version = sagas.version + 1,
        fence = sagas.fence + 1,
        recoveries = locked.recoveries,
        owner = $2,
        token = $3,
        lease_until = $1 + $4::bigint,
        wake_at = NULL,
        updated_at = $1
    FROM locked
    WHERE sagas.n = locked.n
),
journalled AS (
    INSERT INTO {schema}.journal (saga, version, at, write_id, events)
    SELECT n, version + 1, $1, $5, events FROM locked
)
SELECT array_agg(id) FROM locked
