-- What a role needs that runs sagas; making and changing the tables is somebody else's.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON {schema}.migrations TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.sagas TO {role};
GRANT SELECT, INSERT, DELETE ON {schema}.journal, {schema}.counts TO {role};
