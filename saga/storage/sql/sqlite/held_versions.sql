-- At which version are the sagas whose claims stand?
SELECT json_group_array(json_array(sagas.id, sagas.token, sagas.version))
FROM
    (SELECT column1 AS id, column2 AS token FROM (VALUES {rows})) AS held
    CROSS JOIN sagas ON sagas.id = held.id AND sagas.token = held.token
