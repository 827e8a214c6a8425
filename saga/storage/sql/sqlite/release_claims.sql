-- Gives up the claims whose token is the current one.
UPDATE sagas SET owner = NULL, token = NULL, lease_until = NULL, lease_boot = NULL
FROM (SELECT column1 AS id, column2 AS token FROM (VALUES {rows})) AS held
WHERE sagas.id = held.id AND sagas.token = held.token
