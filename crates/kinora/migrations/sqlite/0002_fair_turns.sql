-- Organisations take turns; within one, the more urgent goes first.

ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;

DROP INDEX jobs_queue;
CREATE INDEX jobs_queue ON jobs (model, org_id, priority DESC, seq) WHERE status = 'queued';

-- When each organisation was served last: a number that grows with every turn.
CREATE TABLE turns (
    org_id TEXT    NOT NULL,
    model  TEXT    NOT NULL,
    turn   INTEGER NOT NULL,
    PRIMARY KEY (org_id, model)
) STRICT, WITHOUT ROWID;

CREATE INDEX turns_last ON turns (model, turn);

-- Who works, on what, and how fast; by the clock of leases.
CREATE TABLE workers (
    id         TEXT    NOT NULL PRIMARY KEY,
    model      TEXT    NOT NULL,
    engine     TEXT    NOT NULL,
    -- Milliseconds that a video takes, smoothed; absent before the first.
    pace_ms    INTEGER,
    seen_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
