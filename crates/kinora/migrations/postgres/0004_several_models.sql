-- A worker may serve several models: one row for each. Who works says so again within seconds.

DROP TABLE workers;

-- Who works, on what, and how fast; by the clock of leases.
CREATE TABLE workers (
    id         TEXT   NOT NULL,
    model      TEXT   NOT NULL,
    engine     TEXT   NOT NULL,
    -- Milliseconds that a video takes, smoothed; absent before the first.
    pace_ms    BIGINT,
    seen_at_ms BIGINT NOT NULL,
    PRIMARY KEY (model, id)
) WITH (fillfactor = 50);
