-- What did this token claim already?
SELECT json_group_array(id)
FROM (SELECT id FROM sagas WHERE due_at IS NOT NULL AND token = :token ORDER BY due_at, id)
