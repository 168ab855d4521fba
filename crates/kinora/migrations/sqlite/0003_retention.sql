-- What ended long ago is removed, and pictures that no request names any more.

-- Drawn anew each time a picture is stored, and part of its file's name unless 0: a removal that comes late can then
-- never remove what was stored since.
ALTER TABLE inputs ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
-- When a picture was last handed out to be named by a request or an upload, to within an hour.
ALTER TABLE inputs ADD COLUMN used_at_ms INTEGER NOT NULL DEFAULT 0;
UPDATE inputs SET used_at_ms = created_at_ms;

CREATE INDEX inputs_used ON inputs (used_at_ms);
-- Only of jobs that ended: hashes come in no order, so with each job that waits a submit would touch pages all over.
CREATE INDEX jobs_ended_by_input ON jobs (input_sha256) WHERE finished_at_ms IS NOT NULL;
CREATE INDEX jobs_ended ON jobs (finished_at_ms) WHERE finished_at_ms IS NOT NULL;
CREATE INDEX uploads_by_input ON uploads (input_sha256) WHERE input_sha256 IS NOT NULL;
CREATE INDEX uploads_created ON uploads (created_at_ms);
