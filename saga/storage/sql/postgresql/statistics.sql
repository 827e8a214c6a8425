-- How many sagas of each name and status are there, how many of them need a person, and since when is one unfinished?
SELECT json_agg(json_build_array(name, status, sagas, in_need, (SELECT min(created_at) FROM {schema}.sagas WHERE NOT at_rest)))::text
FROM (
    SELECT name, status, sum(sagas)::bigint AS sagas, coalesce(sum(sagas) FILTER (WHERE in_need), 0)::bigint AS in_need
    FROM {schema}.counts
    GROUP BY name, status
    HAVING sum(sagas) <> 0
) AS count
