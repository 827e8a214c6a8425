-- One page of a journal; no row if there is no such saga.
SELECT (
    SELECT json_group_array(json_array(version, at, CASE typeof(events) WHEN 'text' THEN events END))
    FROM (
        SELECT version, at, events FROM journal WHERE saga = sagas.n AND version > :after ORDER BY version LIMIT :limit
    )
)
FROM sagas
WHERE id = :id
