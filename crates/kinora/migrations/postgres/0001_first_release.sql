-- The same tables as SQLite's. Times are milliseconds since the Unix epoch; lease_until_ms is by this database's clock.

CREATE TABLE keys (
    id            TEXT   NOT NULL PRIMARY KEY,
    org_id        TEXT   NOT NULL,
    user_id       TEXT   NOT NULL,
    sha256        BYTEA  NOT NULL UNIQUE,
    -- The first characters of the key, for people to tell keys apart.
    hint          TEXT   NOT NULL,
    created_at_ms BIGINT NOT NULL,
    revoked_at_ms BIGINT
);

-- What every serving process must know alike: 32 bytes that sign media URLs.
CREATE TABLE secrets (
    name  TEXT  NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);

-- Pictures that passed every check and are stored under their hash.
CREATE TABLE inputs (
    sha256        BYTEA  NOT NULL PRIMARY KEY,
    format        TEXT   NOT NULL,
    width_px      BIGINT NOT NULL,
    height_px     BIGINT NOT NULL,
    size_bytes    BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL
);

CREATE TABLE uploads (
    id            UUID   NOT NULL PRIMARY KEY,
    org_id        TEXT   NOT NULL,
    format        TEXT   NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    input_sha256  BYTEA  REFERENCES inputs (sha256)
);

-- Rows change a few times in their first minutes and then never again: room is left for those changes.
CREATE TABLE jobs (
    -- The order of acceptance: the queue's order and the list's.
    seq              BIGINT  NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id               UUID    NOT NULL UNIQUE,
    revision         BIGINT  NOT NULL,
    org_id           TEXT    NOT NULL,
    user_id          TEXT    NOT NULL,
    model            TEXT    NOT NULL,
    status           TEXT    NOT NULL CHECK (status IN ('queued', 'processing', 'success', 'failed', 'cancelled')),
    payload          TEXT    NOT NULL,
    input_sha256     BYTEA   NOT NULL REFERENCES inputs (sha256),
    input_inline     BOOLEAN NOT NULL,
    seed             BIGINT  NOT NULL,
    created_at_ms    BIGINT  NOT NULL,
    updated_at_ms    BIGINT  NOT NULL,
    queued_at_ms     BIGINT  NOT NULL,
    started_at_ms    BIGINT,
    finished_at_ms   BIGINT,
    -- Counts claims; names the lease that may write.
    attempt          BIGINT  NOT NULL,
    -- Counts claims that ended with neither a result nor a give-back.
    attempts_lost    BIGINT  NOT NULL,
    lease_until_ms   BIGINT,
    worker_id        TEXT    NOT NULL,
    progress         TEXT,
    outcome          TEXT,
    error            TEXT
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

CREATE INDEX jobs_queue ON jobs (model, seq) WHERE status = 'queued';
CREATE INDEX jobs_leased ON jobs (seq) WHERE status = 'processing';
CREATE INDEX jobs_by_org ON jobs (org_id, seq);
CREATE INDEX jobs_by_org_status ON jobs (org_id, status, seq);

-- Kept by the triggers below, so that a total never scans the jobs. Each connection counts in a shard of its own (but
-- for collisions of process numbers), so that writers do not wait for each other; a count is the sum over the shards.
CREATE TABLE job_counts (
    org_id TEXT   NOT NULL,
    model  TEXT   NOT NULL,
    status TEXT   NOT NULL,
    shard  BIGINT NOT NULL,
    count  BIGINT NOT NULL,
    PRIMARY KEY (org_id, model, status, shard)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);

CREATE FUNCTION count_job(of_org TEXT, of_model TEXT, in_status TEXT, by BIGINT) RETURNS VOID LANGUAGE sql AS $$
    INSERT INTO job_counts (org_id, model, status, shard, count)
    VALUES (of_org, of_model, in_status, pg_backend_pid() % 32, by)
    ON CONFLICT (org_id, model, status, shard) DO UPDATE SET count = job_counts.count + excluded.count
$$;

CREATE FUNCTION count_jobs_in() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    PERFORM count_job(org_id, model, status, count(*)) FROM added GROUP BY org_id, model, status;
    RETURN NULL;
END $$;

CREATE FUNCTION count_job_over() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    PERFORM count_job(OLD.org_id, OLD.model, OLD.status, -1);
    PERFORM count_job(NEW.org_id, NEW.model, NEW.status, 1);
    RETURN NULL;
END $$;

CREATE FUNCTION count_jobs_out() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    PERFORM count_job(org_id, model, status, -count(*)) FROM removed GROUP BY org_id, model, status;
    RETURN NULL;
END $$;

CREATE TRIGGER jobs_counted_in AFTER INSERT ON jobs
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_jobs_in();
CREATE TRIGGER jobs_counted_over AFTER UPDATE OF status ON jobs
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION count_job_over();
CREATE TRIGGER jobs_counted_out AFTER DELETE ON jobs
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION count_jobs_out();
