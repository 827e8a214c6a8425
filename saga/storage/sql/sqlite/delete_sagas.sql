DELETE FROM sagas WHERE n IN (SELECT value FROM json_each(:numbers))
