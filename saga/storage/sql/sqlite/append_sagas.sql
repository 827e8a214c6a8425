-- Whose version and claim token are as expected? `ttl` is NULL where the writer owns nothing: the claim stays as it is.
-- One subquery feeds the update, so that SQLite goes through the new rows and looks each saga up.
UPDATE sagas SET
    version = sagas.version + 1,
    status = new.status,
    attention = new.attention,
    at_rest = new.at_rest,
    recoveries = new.recoveries,
    due_at = new.at + new.due_in,
    updated_at = new.at,
    lease_until = CASE WHEN new.ttl IS NULL THEN sagas.lease_until ELSE new.up + new.ttl END,
    lease_boot = CASE WHEN new.ttl IS NULL THEN sagas.lease_boot ELSE new.boot END
FROM (
    SELECT
        instant.*, column1 AS id, column2 AS expected, column3 AS token, column4 AS ttl, column5 AS status,
        column6 AS attention, column7 AS at_rest, column8 AS recoveries, column9 AS due_in
    FROM (SELECT ? AS at, ? AS up, ? AS boot) AS instant, (VALUES {rows})
) AS new
WHERE sagas.id = new.id AND sagas.version = new.expected AND (new.token IS NULL OR sagas.token = new.token)
