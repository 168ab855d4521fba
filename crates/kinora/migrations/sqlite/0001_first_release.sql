-- Times are milliseconds since the Unix epoch, except lease_until_ms, which is on the clock of the
-- process that holds the database (a wall clock that is set back must not revive or steal a lease).

CREATE TABLE keys (
    id            TEXT    NOT NULL PRIMARY KEY,
    org_id        TEXT    NOT NULL,
    user_id       TEXT    NOT NULL,
    sha256        BLOB    NOT NULL UNIQUE,
    -- The first characters of the key, for people to tell keys apart.
    hint          TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL,
    revoked_at_ms INTEGER
) STRICT;

-- Pictures that passed every check and lie in the data folder under their hash.
CREATE TABLE inputs (
    sha256        BLOB    NOT NULL PRIMARY KEY,
    format        TEXT    NOT NULL,
    width_px      INTEGER NOT NULL,
    height_px     INTEGER NOT NULL,
    size_bytes    INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE uploads (
    id            BLOB    NOT NULL PRIMARY KEY,
    org_id        TEXT    NOT NULL,
    format        TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    input_sha256  BLOB    REFERENCES inputs (sha256)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    -- The order of acceptance: the queue's order and the list's.
    seq              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id               BLOB    NOT NULL UNIQUE,
    revision         INTEGER NOT NULL,
    org_id           TEXT    NOT NULL,
    user_id          TEXT    NOT NULL,
    model            TEXT    NOT NULL,
    status           TEXT    NOT NULL CHECK (status IN ('queued', 'processing', 'success', 'failed', 'cancelled')),
    payload          TEXT    NOT NULL,
    input_sha256     BLOB    NOT NULL REFERENCES inputs (sha256),
    input_inline     INTEGER NOT NULL,
    seed             INTEGER NOT NULL,
    created_at_ms    INTEGER NOT NULL,
    updated_at_ms    INTEGER NOT NULL,
    queued_at_ms     INTEGER NOT NULL,
    started_at_ms    INTEGER,
    finished_at_ms   INTEGER,
    -- Counts claims; names the lease that may write.
    attempt          INTEGER NOT NULL,
    -- Counts claims that ended with neither a result nor a give-back.
    attempts_lost    INTEGER NOT NULL,
    lease_until_ms   INTEGER,
    worker_id        TEXT    NOT NULL,
    progress         TEXT,
    outcome          TEXT,
    error            TEXT
) STRICT;

CREATE INDEX jobs_queue ON jobs (model, seq) WHERE status = 'queued';
CREATE INDEX jobs_leased ON jobs (lease_until_ms) WHERE status = 'processing';
CREATE INDEX jobs_by_org ON jobs (org_id, seq);
CREATE INDEX jobs_by_org_status ON jobs (org_id, status, seq);

-- Kept by the triggers below, so that a total never scans the jobs.
CREATE TABLE job_counts (
    org_id TEXT    NOT NULL,
    model  TEXT    NOT NULL,
    status TEXT    NOT NULL,
    count  INTEGER NOT NULL,
    PRIMARY KEY (org_id, model, status)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER jobs_counted_in AFTER INSERT ON jobs BEGIN
    INSERT INTO job_counts (org_id, model, status, count) VALUES (NEW.org_id, NEW.model, NEW.status, 1)
    ON CONFLICT DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER jobs_counted_over AFTER UPDATE OF status ON jobs WHEN OLD.status <> NEW.status BEGIN
    UPDATE job_counts SET count = count - 1
    WHERE org_id = OLD.org_id AND model = OLD.model AND status = OLD.status;
    INSERT INTO job_counts (org_id, model, status, count) VALUES (NEW.org_id, NEW.model, NEW.status, 1)
    ON CONFLICT DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER jobs_counted_out AFTER DELETE ON jobs BEGIN
    UPDATE job_counts SET count = count - 1
    WHERE org_id = OLD.org_id AND model = OLD.model AND status = OLD.status;
END;
