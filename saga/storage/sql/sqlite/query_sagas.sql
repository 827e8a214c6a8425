-- One page of rows, newest first.
SELECT json_group_array(json_array(
    id, name, saga_version, status, attention, version, created_at, updated_at, due_at, owner, fence, recoveries
))
FROM (SELECT * FROM sagas WHERE {conditions} ORDER BY created_at DESC, id DESC LIMIT :limit)
