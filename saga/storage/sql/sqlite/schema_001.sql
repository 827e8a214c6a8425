-- All instants and durations are whole microseconds: they stay exact in JSON, where SQLite keeps 15 digits of a real.

-- One row a saga; small, since it is written anew at each append. Rows are found by number, so that sagas which run
-- at the same time stand side by side and one flush touches few pages.
CREATE TABLE sagas (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    saga_version TEXT NOT NULL,
    status TEXT NOT NULL,
    attention TEXT,
    at_rest INTEGER NOT NULL,
    version INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    recoveries INTEGER NOT NULL,
    owner TEXT,
    token TEXT,
    lease_until INTEGER,
    lease_boot TEXT,
    due_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);

-- One row an append, in the order of writing: the appends of one flush fill the last pages of the table, whichever
-- sagas they belong to.
CREATE TABLE journal (
    place INTEGER PRIMARY KEY,
    saga INTEGER NOT NULL,
    version INTEGER NOT NULL,
    at INTEGER NOT NULL,
    write_id TEXT NOT NULL,
    events TEXT NOT NULL
);

-- Reads a journal in order.
CREATE UNIQUE INDEX journal_by_version ON journal (saga, version);

-- Finds the first answer to a write.
CREATE UNIQUE INDEX journal_by_write ON journal (saga, write_id);

-- Finds what is due.
CREATE INDEX sagas_due ON sagas (due_at) WHERE due_at IS NOT NULL;

-- Finds what a token claimed. Appends leave the token alone, so that they need not touch this index.
CREATE INDEX sagas_by_token ON sagas (token) WHERE token IS NOT NULL;

-- Pages through all sagas.
CREATE INDEX sagas_by_age ON sagas (created_at, id);

-- Pages through what a person should look at; a saga without trouble is never in it.
CREATE INDEX sagas_in_need ON sagas (created_at, id) WHERE attention IS NOT NULL OR status = 'failed';
