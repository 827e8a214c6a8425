-- Requests move the version and wake what is not at rest; everything else stays as it is.
UPDATE sagas SET
    version = sagas.version + 1,
    due_at = CASE WHEN sagas.at_rest THEN sagas.due_at ELSE instant.at END,
    updated_at = instant.at
FROM
    (SELECT ? AS at) AS instant
    CROSS JOIN (SELECT column1 AS id FROM (VALUES {rows})) AS new
WHERE sagas.id = new.id
