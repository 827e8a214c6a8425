-- What did this token claim already?
SELECT array_agg(id ORDER BY due_at, id) FROM {schema}.sagas WHERE token = $1
