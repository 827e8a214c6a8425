-- What did this token claim already?
SELECT json_group_array(id)
FROM (SELECT id FROM sagas WHERE token IS NOT NULL AND token = :token ORDER BY due_at, id)
