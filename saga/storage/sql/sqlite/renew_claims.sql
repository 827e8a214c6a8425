-- Extends the claims whose token is the current one.
UPDATE sagas SET lease_until = held.up + held.ttl, lease_boot = held.boot
FROM (
    SELECT instant.*, column1 AS id, column2 AS token, column3 AS ttl
    FROM (SELECT ? AS up, ? AS boot) AS instant, (VALUES {rows})
) AS held
WHERE sagas.id = held.id AND sagas.token = held.token
