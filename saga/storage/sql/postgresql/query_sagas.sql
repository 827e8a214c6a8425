-- One page of rows, newest first, below a place. Each status is gone through in the order of an index.
SELECT json_agg(json_build_array(
    id, name, saga_version, status, attention, version, created_at, updated_at, due_at, owner, fence, recoveries
) ORDER BY created_at DESC, id DESC)::text
FROM (
    SELECT saga.*
    FROM {groups} CROSS JOIN LATERAL (
        SELECT *
        FROM {schema}.sagas
        WHERE {conditions} AND (created_at, id) < ($1::bigint, $2::text)
        ORDER BY created_at DESC, id DESC
        LIMIT $3::integer
    ) AS saga
    ORDER BY created_at DESC, id DESC
    LIMIT $3::integer
) AS page
