-- All instants and durations are whole microseconds: they stay exact in JSON, and mean the same in every time zone.

-- One row a saga; small, since it is written anew at each append. While nothing changes that an index holds, the new
-- row version stays on its page (HOT); half of each page is left free for that.
CREATE TABLE {schema}.sagas (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    name text COLLATE "C" NOT NULL,
    saga_version text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    attention text,
    at_rest boolean NOT NULL,
    version integer NOT NULL,
    fence integer NOT NULL,
    recoveries integer NOT NULL,
    owner text,
    token text COLLATE "C",
    lease_until bigint,
    due_at bigint,
    -- The due time of a saga that nobody drives; NULL while it is driven, so that an owner's appends leave it alone.
    wake_at bigint,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- Finds what of a definition is due and driven by nobody.
CREATE INDEX sagas_due ON {schema}.sagas (name, saga_version, wake_at, id) WHERE wake_at IS NOT NULL;

-- Finds what is driven: what a token claimed, and whose lease has ended.
CREATE INDEX sagas_claimed ON {schema}.sagas (token) WHERE token IS NOT NULL;

-- Page through all sagas, those of a status, those of a name.
CREATE INDEX sagas_by_age ON {schema}.sagas (created_at, id);
CREATE INDEX sagas_by_status ON {schema}.sagas (status, created_at, id);
CREATE INDEX sagas_by_name ON {schema}.sagas (name, status, created_at, id);

-- Pages through what a person should look at; a saga without trouble is never in it.
CREATE INDEX sagas_in_need ON {schema}.sagas (created_at, id) WHERE attention IS NOT NULL OR status = 'failed';

-- One row an append. The key finds the first answer to a write, and refuses a second; that a saga has each version once
-- follows from its row. A journal is read whole, and put in order then: one index less to write.
CREATE TABLE {schema}.journal (
    saga bigint NOT NULL,
    version integer NOT NULL,
    at bigint NOT NULL,
    write_id text NOT NULL,
    events text NOT NULL,
    PRIMARY KEY (saga, write_id)
);

-- How many ended sagas there are: the sum of all rows of a kind. Each flush adds what it changed; sweeps add up what
-- lies there.
CREATE TABLE {schema}.counts (
    name text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    in_need boolean NOT NULL,
    sagas bigint NOT NULL
);
