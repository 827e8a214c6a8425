-- These sagas with their journals.
SELECT json_agg(json_build_array(
    id, name, saga_version, status, attention, version, created_at, updated_at, due_at, owner, fence, recoveries,
    coalesce(
        (SELECT json_agg(json_build_array(version, at, events) ORDER BY version) FROM {schema}.journal WHERE saga = n),
        '[]'
    )
))::text
FROM {schema}.sagas
WHERE id = ANY ($1::text[])
