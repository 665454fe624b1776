-- Times are microseconds since 1970, UTC. A Worker without a namespace belongs to the account itself.

CREATE TABLE facts (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE namespaces (
    name     TEXT PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,
    created  INTEGER NOT NULL,
    modified INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE workers (
    id        INTEGER PRIMARY KEY,
    namespace TEXT REFERENCES namespaces (name) ON DELETE CASCADE,
    name      TEXT NOT NULL,
    created   INTEGER NOT NULL,
    modified  INTEGER NOT NULL,
    current   TEXT NOT NULL
) STRICT;

-- NULLs are distinct to a unique index, hence two.
CREATE UNIQUE INDEX workers_of_namespaces ON workers (namespace, name);
CREATE UNIQUE INDEX workers_of_the_account ON workers (name) WHERE namespace IS NULL;

CREATE TABLE versions (
    id          TEXT PRIMARY KEY,
    worker      INTEGER NOT NULL REFERENCES workers (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    created     INTEGER NOT NULL,
    digest      TEXT NOT NULL,
    files       TEXT,
    size        INTEGER NOT NULL,
    startup_ms  INTEGER NOT NULL,
    manifest    TEXT NOT NULL,
    attestation TEXT NOT NULL,
    UNIQUE (worker, number)
) STRICT;

CREATE INDEX versions_by_digest ON versions (digest);
CREATE INDEX versions_by_files ON versions (files) WHERE files IS NOT NULL;

CREATE TABLE tags (
    worker INTEGER NOT NULL REFERENCES workers (id) ON DELETE CASCADE,
    tag    TEXT NOT NULL,
    PRIMARY KEY (worker, tag)
) STRICT, WITHOUT ROWID;
