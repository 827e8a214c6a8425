-- Which sagas are due and driven by nobody, oldest due first? Of those that would have crashed twice or more in a row
-- (suspects) only so many are chosen. Due times are never set at rest. A token never claims the same saga twice.
SELECT json_group_array(json_array(id, version, fence, recoveries, expired))
FROM (
    SELECT id, version, fence, recoveries, expired
    FROM (
        SELECT
            id, version, fence, recoveries, expired, due_at,
            sum(recoveries >= :suspect) OVER (ORDER BY due_at, id) AS suspects
        FROM (
            SELECT
                id, version, fence, due_at, recoveries + (token IS NOT NULL) AS recoveries,
                token IS NOT NULL AS expired
            FROM sagas
            WHERE
                due_at IS NOT NULL
                AND due_at <= :at
                AND status IN ('pending', 'executing', 'compensating')
                AND (token IS NULL OR lease_boot <> :boot OR lease_until <= :up)
                AND (name, saga_version) IN (
                    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:definitions)
                )
                AND id NOT IN (SELECT value FROM json_each(:exclude))
                AND NOT EXISTS (SELECT TRUE FROM journal WHERE saga = sagas.n AND write_id = :write_id)
        )
    )
    WHERE recoveries < :suspect OR suspects <= :suspects
    ORDER BY due_at, id
    LIMIT :limit
)
