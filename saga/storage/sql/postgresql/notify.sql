-- Says which sagas somebody made due; heard when the transaction commits.
SELECT count(pg_notify('saga ' || $1, id)) FROM unnest($2::text[]) AS due (id)
