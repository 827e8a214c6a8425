-- Which sagas at rest last grew before this instant? No saga was created after it last grew.
SELECT json_group_array(n)
FROM (
    SELECT n FROM sagas
    WHERE created_at < :before AND updated_at < :before AND status IN (SELECT value FROM json_each(:statuses))
    ORDER BY created_at, id
    LIMIT :limit
)
