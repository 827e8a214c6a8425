-- One page of a journal; no row if there is no such saga.
SELECT (
    SELECT coalesce(json_agg(json_build_array(version, at, events) ORDER BY version), '[]')::text
    FROM (
        SELECT version, at, events
        FROM {schema}.journal
        WHERE saga = sagas.n AND version > $2::bigint
        ORDER BY version
        LIMIT $3::integer
    ) AS page
)
FROM {schema}.sagas
WHERE id = $1
