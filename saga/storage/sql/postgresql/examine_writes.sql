-- What stands where these writes want to write, and were they stored before?
SELECT json_agg(json_build_array(new.id, sagas.version, sagas.token, journal.version, journal.at))::text
FROM
    unnest($1::text[], $2::text[]) AS new (id, write_id)
    JOIN {schema}.sagas ON sagas.id = new.id
    LEFT JOIN LATERAL (
        SELECT version, at FROM {schema}.journal WHERE saga = sagas.n AND write_id = new.write_id LIMIT 1
    ) AS journal ON true
