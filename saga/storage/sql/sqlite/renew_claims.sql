-- Extends the claims whose token is the current one.
UPDATE sagas SET lease_until = instant.up + held.ttl, lease_boot = instant.boot
FROM
    (SELECT ? AS up, ? AS boot) AS instant
    CROSS JOIN (SELECT column1 AS id, column2 AS token, column3 AS ttl FROM (VALUES {rows})) AS held
WHERE sagas.id = held.id AND sagas.token = held.token
