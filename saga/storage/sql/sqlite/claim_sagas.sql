-- Claims the sagas that were just found to be due.
UPDATE sagas SET
    version = sagas.version + 1,
    fence = sagas.fence + 1,
    recoveries = new.recoveries,
    owner = claim.owner,
    token = claim.token,
    lease_until = claim.until,
    lease_boot = claim.boot,
    updated_at = claim.at
FROM
    (SELECT ? AS owner, ? AS token, ? AS until, ? AS boot, ? AS at) AS claim
    CROSS JOIN (SELECT column1 AS id, column2 AS recoveries FROM (VALUES {rows})) AS new
WHERE sagas.id = new.id
