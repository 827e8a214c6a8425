-- Whose version and claim token are as expected? `hold` is 1 where the owner keeps the claim, 0 where it gives the
-- claim up, NULL where the writer owns nothing and the claim stays as it is.
UPDATE sagas SET
    version = sagas.version + 1,
    status = new.status,
    attention = new.attention,
    at_rest = new.at_rest,
    recoveries = new.recoveries,
    due_at = instant.at + new.due_in,
    updated_at = instant.at,
    owner = CASE WHEN new.hold = 0 THEN NULL ELSE sagas.owner END,
    token = CASE WHEN new.hold = 0 THEN NULL ELSE sagas.token END,
    lease_until = CASE new.hold WHEN 1 THEN instant.up + new.ttl WHEN 0 THEN NULL ELSE sagas.lease_until END,
    lease_boot = CASE new.hold WHEN 1 THEN instant.boot WHEN 0 THEN NULL ELSE sagas.lease_boot END
FROM
    (SELECT ? AS at, ? AS up, ? AS boot) AS instant
    CROSS JOIN (
        SELECT
            column1 AS id, column2 AS expected, column3 AS token, column4 AS hold, column5 AS ttl,
            column6 AS status, column7 AS attention, column8 AS at_rest, column9 AS recoveries, column10 AS due_in
        FROM (VALUES {rows})
    ) AS new
WHERE sagas.id = new.id AND sagas.version = new.expected AND (new.token IS NULL OR sagas.token = new.token)
