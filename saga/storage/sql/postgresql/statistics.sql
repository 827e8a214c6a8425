-- How many sagas of each name and status are there, how many of them need a person, and since when is one unfinished?
-- The ended ones were counted as they ended; the others are gone through, each status in an index.
SELECT json_agg(json_build_array(name, status, sagas, in_need, oldest))::text
FROM (
    SELECT
        name, status, sum(sagas)::bigint AS sagas, coalesce(sum(sagas) FILTER (WHERE in_need), 0)::bigint AS in_need,
        min(oldest) AS oldest
    FROM (
        SELECT name, status, in_need, sagas, NULL::bigint AS oldest FROM {schema}.counts
        UNION ALL
        SELECT
            name, status, attention IS NOT NULL OR status = 'failed', count(*),
            min(created_at) FILTER (WHERE NOT at_rest)
        FROM {schema}.sagas
        WHERE status IN ('pending', 'executing', 'compensating', 'failed')
        GROUP BY 1, 2, 3
    ) AS part
    GROUP BY name, status
    HAVING sum(sagas) <> 0
) AS count
