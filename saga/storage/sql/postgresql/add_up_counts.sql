-- Puts one row of each kind in place of many; the sums stay the same. Claims are serialised, and so is this.
WITH gone AS (
    DELETE FROM {schema}.counts
    WHERE
        ctid = ANY (ARRAY(SELECT ctid FROM {schema}.counts LIMIT 20000))
        AND (SELECT count(*) FROM (SELECT 1 FROM {schema}.counts LIMIT 200) AS first_rows) = 200
    RETURNING name, status, in_need, sagas
)
INSERT INTO {schema}.counts (name, status, in_need, sagas)
SELECT name, status, in_need, sum(sagas) FROM gone GROUP BY name, status, in_need HAVING sum(sagas) <> 0
