-- Claims the sagas that were just found to be due.
UPDATE sagas SET
    version = sagas.version + 1,
    fence = sagas.fence + 1,
    recoveries = new.recoveries,
    owner = new.owner,
    token = new.token,
    lease_until = new.until,
    lease_boot = new.boot,
    updated_at = new.at
FROM (
    SELECT claim.*, column1 AS id, column2 AS recoveries
    FROM (SELECT ? AS owner, ? AS token, ? AS until, ? AS boot, ? AS at) AS claim, (VALUES {rows})
) AS new
WHERE sagas.id = new.id
