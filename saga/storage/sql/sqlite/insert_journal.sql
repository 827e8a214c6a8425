-- The entries that go with this flush's rows.
INSERT INTO journal (saga, version, at, write_id, events)
SELECT sagas.n, new.version, instant.at, new.write_id, new.events
FROM
    (SELECT ? AS at) AS instant
    CROSS JOIN (
        SELECT column1 AS id, column2 AS version, column3 AS write_id, column4 AS events FROM (VALUES {rows})
    ) AS new
    CROSS JOIN sagas ON sagas.id = new.id
