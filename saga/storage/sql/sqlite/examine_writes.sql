-- What stands where these writes want to write, and were they stored before?
SELECT json_group_array(json_array(new.id, sagas.version, sagas.token, journal.version, journal.at))
FROM
    (SELECT column1 AS id, column2 AS write_id FROM (VALUES {rows})) AS new
    CROSS JOIN sagas ON sagas.id = new.id
    LEFT JOIN journal ON journal.saga = sagas.n AND journal.write_id = new.write_id
