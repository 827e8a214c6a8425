-- How many sagas of each name and status are there, how many of them need a person, and since when is one unfinished?
SELECT json_group_array(json_array(name, status, sagas, in_need, oldest_unfinished))
FROM (
    SELECT
        name, status,
        count(*) AS sagas,
        sum(attention IS NOT NULL OR status = 'failed') AS in_need,
        min(CASE WHEN NOT at_rest THEN created_at END) AS oldest_unfinished
    FROM sagas
    GROUP BY name, status
)
