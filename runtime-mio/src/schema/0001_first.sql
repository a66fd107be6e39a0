-- The first schema. Ids are text, because people look in here with sqlite3 and search logs for what they find; that
-- costs 20 bytes an id. Times are milliseconds since 1970. Secrets are nowhere: tokens only as SHA-256.

-- The daemon itself: exactly one row.
CREATE TABLE meta (
  one        INTEGER PRIMARY KEY CHECK (one = 1),
  daemon_id  TEXT    NOT NULL CHECK (length(daemon_id) = 52),
  name       TEXT,
  seq        INTEGER NOT NULL DEFAULT 0,
  unix_high  INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Pairing windows that wrong guesses closed, oldest first.
CREATE TABLE failed_window (
  n   INTEGER PRIMARY KEY,
  at  INTEGER NOT NULL
) STRICT;

CREATE TABLE device (
  id                 TEXT    PRIMARY KEY CHECK (length(id) = 8),
  name               TEXT    NOT NULL,
  platform           TEXT    NOT NULL,
  role               TEXT    NOT NULL CHECK (role IN ('read', 'approve', 'full', 'admin')),
  token_sha256       BLOB    NOT NULL CHECK (length(token_sha256) = 32),
  next_token_sha256  BLOB    CHECK (length(next_token_sha256) = 32),
  rotated_at         INTEGER,
  created_at         INTEGER NOT NULL,
  last_seen_at       INTEGER NOT NULL,
  last_via           TEXT    NOT NULL,
  expires_at         INTEGER,
  revoked_at         INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
  id               TEXT    PRIMARY KEY,
  repo_path        TEXT    NOT NULL,
  title            TEXT    NOT NULL,
  provider         TEXT    NOT NULL,
  status           TEXT    NOT NULL,
  created_at       INTEGER NOT NULL,
  updated_at       INTEGER NOT NULL,
  message_count    INTEGER NOT NULL,
  model            TEXT,
  model_override   TEXT,
  agent_session    TEXT    NOT NULL,
  agent_resumable  INTEGER NOT NULL CHECK (agent_resumable IN (0, 1)),
  input_tokens     INTEGER NOT NULL,
  output_tokens    INTEGER NOT NULL,
  cost_micro_usd   INTEGER
) STRICT, WITHOUT ROWID;

-- References are checked at commit: the order within one operation does not matter.
CREATE TABLE message (
  n           INTEGER PRIMARY KEY,
  id          TEXT    NOT NULL UNIQUE,
  session     TEXT    NOT NULL
              REFERENCES session (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  ordinal     INTEGER NOT NULL,
  author      TEXT    NOT NULL,
  content     TEXT    NOT NULL,
  status      TEXT    NOT NULL,
  created_at  INTEGER NOT NULL,
  metadata    TEXT    NOT NULL,
  client_id   TEXT
) STRICT;

CREATE UNIQUE INDEX message_place ON message (session, ordinal);
CREATE UNIQUE INDEX message_client ON message (session, client_id) WHERE client_id IS NOT NULL;
CREATE INDEX message_open ON message (n) WHERE status NOT IN ('done', 'error');

-- `n` is the order in which they were made.
CREATE TABLE tool_call (
  n                  INTEGER PRIMARY KEY,
  id                 TEXT    NOT NULL UNIQUE,
  session            TEXT    NOT NULL
                     REFERENCES session (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  message            TEXT    NOT NULL
                     REFERENCES message (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  provider_id        TEXT    NOT NULL,
  name               TEXT    NOT NULL,
  input              TEXT    NOT NULL,
  status             TEXT    NOT NULL,
  risk               TEXT    NOT NULL,
  created_at         INTEGER NOT NULL,
  completed_at       INTEGER,
  requires_approval  INTEGER NOT NULL CHECK (requires_approval IN (0, 1)),
  expires_at         INTEGER,
  decided_by         TEXT,
  decided_at         INTEGER,
  decision           TEXT,
  output             TEXT,
  CHECK ((decision IS NULL) = (decided_by IS NULL) AND (decision IS NULL) = (decided_at IS NULL))
) STRICT;

CREATE INDEX tool_call_session ON tool_call (session, n);
CREATE INDEX tool_call_message ON tool_call (message);
CREATE INDEX tool_call_open ON tool_call (n) WHERE status NOT IN ('done', 'error');
