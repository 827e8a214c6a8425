-- Gives up the claims whose token is the current one.
WITH locked AS MATERIALIZED (
    SELECT saga.n
    FROM
        unnest($1::text[], $2::text[]) AS new (id, token)
        CROSS JOIN LATERAL (
            SELECT n FROM {schema}.sagas WHERE id = new.id AND token = new.token FOR NO KEY UPDATE
        ) AS saga
)
UPDATE {schema}.sagas SET owner = NULL, token = NULL, lease_until = NULL, wake_at = due_at
FROM locked
WHERE sagas.n = locked.n
