-- Requests move the version and wake what is not at rest; everything else stays as it is.
UPDATE sagas SET
    version = sagas.version + 1,
    due_at = CASE WHEN sagas.at_rest THEN sagas.due_at ELSE new.at END,
    updated_at = new.at
FROM (SELECT instant.*, column1 AS id FROM (SELECT ? AS at) AS instant, (VALUES {rows})) AS new
WHERE sagas.id = new.id
