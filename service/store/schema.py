"""Tables of the store and how older files become the present version.

Times ending in `_us` are microseconds of UTC since 1970 unless the column says otherwise.
"""

from __future__ import annotations

__all__ = ["MIGRATIONS", "VERSION"]

_VERSION_1 = """
CREATE TABLE camera (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  tz TEXT NOT NULL,
  source_redacted TEXT NOT NULL,
  config_sha TEXT NOT NULL,
  created_us INTEGER NOT NULL,
  removed_us INTEGER,
  enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),  -- 0: switched off by a person
  accounted_us INTEGER NOT NULL  -- every microsecond from created_us to here is in one account
) STRICT;

CREATE TABLE run (
  id TEXT PRIMARY KEY,
  camera_id TEXT NOT NULL REFERENCES camera(id),
  boot_id TEXT NOT NULL,
  started_us INTEGER NOT NULL,
  committed_us INTEGER NOT NULL,  -- end of the newest second whose outcome was committed
  ended_us INTEGER,
  end_cause TEXT,
  bundle_sha TEXT NOT NULL,
  engine TEXT NOT NULL,           -- JSON
  vocabulary_version TEXT NOT NULL,
  CHECK ((ended_us IS NULL) = (end_cause IS NULL))
) STRICT;
CREATE INDEX run_of_camera ON run(camera_id, started_us);
CREATE INDEX run_open ON run(camera_id) WHERE ended_us IS NULL;

CREATE TABLE anchor (
  run_id TEXT NOT NULL REFERENCES run(id),
  media_us INTEGER NOT NULL,      -- media time of the run
  utc_us INTEGER NOT NULL,
  monotonic_us INTEGER NOT NULL,  -- monotonic clock of the boot
  cause TEXT NOT NULL,
  PRIMARY KEY (run_id, media_us, monotonic_us)
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
  id TEXT PRIMARY KEY,
  run_id TEXT NOT NULL REFERENCES run(id),
  camera_id TEXT NOT NULL REFERENCES camera(id),
  session_event_id INTEGER NOT NULL,
  label TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'ended', 'retracted')),
  revision INTEGER NOT NULL,
  start_us INTEGER NOT NULL,
  end_us INTEGER NOT NULL,
  peak_margin REAL NOT NULL,
  peak_probability REAL,
  end_cause TEXT,
  group_id TEXT,
  reviewed_us INTEGER,
  reviewed_by TEXT,
  verdict TEXT,
  pinned INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
  UNIQUE (run_id, session_event_id),
  CHECK (end_us >= start_us)
) STRICT;
CREATE INDEX event_by_time ON event(start_us DESC, id DESC);
CREATE INDEX event_by_camera ON event(camera_id, start_us DESC, id DESC);
CREATE INDEX event_by_label ON event(label, start_us DESC, id DESC);
CREATE INDEX event_open ON event(run_id) WHERE state = 'open';

CREATE TABLE event_log (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  event_id TEXT NOT NULL,
  revision INTEGER NOT NULL,
  kind TEXT NOT NULL,
  utc_us INTEGER NOT NULL,
  body TEXT NOT NULL,             -- JSON
  UNIQUE (event_id, revision)
) STRICT;

CREATE TABLE asset (
  id INTEGER PRIMARY KEY,
  event_id TEXT NOT NULL REFERENCES event(id) ON DELETE CASCADE,
  kind TEXT NOT NULL CHECK (kind IN ('snapshot', 'clip', 'sound')),
  state TEXT NOT NULL CHECK (state IN ('pending', 'ready', 'failed', 'removed')),
  cause TEXT,
  path TEXT,
  bytes INTEGER,
  sha256 TEXT,
  start_us INTEGER,
  end_us INTEGER,
  has_audio INTEGER CHECK (has_audio IN (0, 1)),
  codec TEXT,                     -- of its pictures: h264, hevc, webp; empty without any
  UNIQUE (event_id, kind),
  CHECK ((state = 'ready') = (path IS NOT NULL))
) STRICT;
CREATE INDEX asset_by_state ON asset(state, kind);
CREATE UNIQUE INDEX asset_file ON asset(path) WHERE path IS NOT NULL;

CREATE TABLE event_log_trimmed (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  entries INTEGER NOT NULL        -- how many of the log were deleted with their events; no other number is missing
) STRICT;
INSERT INTO event_log_trimmed VALUES (1, 0);

CREATE TABLE account (
  camera_id TEXT NOT NULL REFERENCES camera(id),
  hour_us INTEGER NOT NULL,
  seconds INTEGER NOT NULL DEFAULT 0,    -- windows that began in this hour
  final INTEGER NOT NULL DEFAULT 0,      -- of these, how many were decided
  final_us INTEGER NOT NULL DEFAULT 0,   -- time that was decided on
  dropped TEXT NOT NULL DEFAULT '{}',    -- JSON: cause -> windows that were not decided
  dropped_us INTEGER NOT NULL DEFAULT 0,
  gap_us TEXT NOT NULL DEFAULT '{}',     -- JSON: cause -> time without windows
  off_us INTEGER NOT NULL DEFAULT 0,     -- time in which the camera was switched off
  PRIMARY KEY (camera_id, hour_us)
) STRICT, WITHOUT ROWID;

CREATE TABLE incident (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,             -- what befell the service: "camera down", "disk low" …
  camera_id TEXT REFERENCES camera(id),  -- NULL: the whole site
  detail TEXT NOT NULL,
  start_us INTEGER NOT NULL,
  end_us INTEGER,                 -- NULL: it continues
  CHECK (end_us >= start_us)
) STRICT;
CREATE UNIQUE INDEX incident_open ON incident(kind, coalesce(camera_id, '')) WHERE end_us IS NULL;
CREATE INDEX incident_by_time ON incident(start_us);

CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  sink TEXT NOT NULL,
  key TEXT NOT NULL,              -- what cooldowns go by: camera and label, or camera and kind of incident
  event_id TEXT NOT NULL,
  revision INTEGER NOT NULL,
  body TEXT NOT NULL,             -- JSON
  created_us INTEGER NOT NULL,
  next_us INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'suppressed', 'failed')),
  ended_us INTEGER,
  last_error TEXT,
  UNIQUE (sink, event_id, revision)
) STRICT;
CREATE INDEX outbox_due ON outbox(sink, id, next_us) WHERE state = 'pending';  -- in order: no sorting of a long backlog
CREATE INDEX outbox_order ON outbox(sink, event_id, revision) WHERE state = 'pending';
CREATE INDEX outbox_by_key ON outbox(sink, key, ended_us) WHERE state = 'delivered';

CREATE TABLE mute (
  id INTEGER PRIMARY KEY,
  camera_id TEXT NOT NULL REFERENCES camera(id),
  label TEXT,                     -- NULL: all of the camera
  since_us INTEGER,
  until_us INTEGER,
  vector BLOB,                    -- float32; mutes what is near
  threshold REAL,
  CHECK ((until_us IS NULL) <> (vector IS NULL)),
  CHECK ((vector IS NULL) = (threshold IS NULL))
) STRICT;

CREATE TABLE user (
  name TEXT PRIMARY KEY,
  role TEXT NOT NULL CHECK (role IN ('view', 'operate', 'admin')),
  password_hash TEXT NOT NULL,
  created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE token (
  sha256 BLOB PRIMARY KEY,
  name TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('view', 'operate', 'admin')),
  created_us INTEGER NOT NULL,
  used_us INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
  sha256 BLOB PRIMARY KEY,
  user TEXT NOT NULL REFERENCES user(name) ON DELETE CASCADE,
  created_us INTEGER NOT NULL,
  expires_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  utc_us INTEGER NOT NULL,
  who TEXT NOT NULL,
  what TEXT NOT NULL,
  detail TEXT NOT NULL            -- JSON
) STRICT;
"""

_VERSION_2 = """
CREATE TABLE vocabulary (
  version TEXT PRIMARY KEY,
  names TEXT NOT NULL             -- JSON, the background last
) STRICT;

CREATE TABLE second (
  event_id TEXT NOT NULL REFERENCES event(id) ON DELETE CASCADE,
  start_us INTEGER NOT NULL,
  body BLOB NOT NULL,             -- msgpack: what was seen and heard best, by places in the run's vocabulary
  PRIMARY KEY (event_id, start_us)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_to_review ON event(start_us DESC, id DESC) WHERE reviewed_us IS NULL;
CREATE INDEX session_of_user ON session(user);
"""

MIGRATIONS = (_VERSION_1, _VERSION_2)
"""MIGRATIONS[n] makes a file of version n + 1 of one of version n; version 0 is an empty file."""

VERSION = len(MIGRATIONS)
"""`PRAGMA user_version` of the files that this ovavel writes."""
