DELETE FROM journal WHERE saga IN (SELECT value FROM json_each(:numbers))
