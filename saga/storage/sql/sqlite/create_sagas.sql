-- Which of these sagas are new? An id that is taken keeps its row.
INSERT INTO sagas (
    id, name, saga_version, status, attention, at_rest, version, fence, recoveries,
    owner, token, lease_until, lease_boot, due_at, created_at, updated_at
)
SELECT
    new.id, new.name, new.saga_version, new.status, new.attention, new.at_rest, 1, new.fence, new.recoveries,
    new.owner, new.token, instant.up + new.ttl, CASE WHEN new.token IS NOT NULL THEN instant.boot END,
    instant.at + new.due_in, instant.at, instant.at
FROM
    (SELECT ? AS at, ? AS up, ? AS boot) AS instant
    CROSS JOIN (
        SELECT
            column1 AS id, column2 AS name, column3 AS saga_version, column4 AS status, column5 AS attention,
            column6 AS at_rest, column7 AS fence, column8 AS recoveries, column9 AS owner, column10 AS token,
            column11 AS ttl, column12 AS due_in
        FROM (VALUES {rows})
    ) AS new
WHERE new.id IS NOT NULL
ON CONFLICT (id) DO NOTHING
