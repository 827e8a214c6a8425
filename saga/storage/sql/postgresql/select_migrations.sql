-- Which migrations were applied?
SELECT number, checksum FROM {schema}.migrations ORDER BY number
