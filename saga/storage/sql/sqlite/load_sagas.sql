-- These sagas with their journals. An entry that is no text is handed over as null, and found unreadable.
SELECT json_group_array(json_array(
    id, name, saga_version, status, attention, version, created_at, updated_at, due_at, owner, fence, recoveries,
    (
        SELECT json_group_array(json_array(version, at, CASE typeof(events) WHEN 'text' THEN events END))
        FROM (SELECT version, at, events FROM journal WHERE saga = sagas.n ORDER BY version)
    )
))
FROM sagas
WHERE id IN (SELECT value FROM json_each(:ids))
