-- The journal: every durable event as it was told, so that it can be told again to those who were away.

-- Exactly one row. All events up to `forgotten` may be gone; those from before this table never were in it.
CREATE TABLE journal (
  one        INTEGER PRIMARY KEY CHECK (one = 1),
  forgotten  INTEGER NOT NULL
) STRICT;

INSERT INTO journal (one, forgotten) VALUES (1, ifnull((SELECT seq FROM meta), 0));

-- One chapter for each life of the daemon, the last ones: it begins after event `start`. What one chapter told ends where
-- the next begins, whatever its readers have seen.
CREATE TABLE chapter (
  n      INTEGER PRIMARY KEY,
  id     TEXT    NOT NULL,
  start  INTEGER NOT NULL
) STRICT;

-- `nth` and `bytes_end` only rise: how many events and bytes of text were written up to this one. What is over a bound is
-- found from the oldest end, by looking at what goes and at nothing else.
CREATE TABLE event (
  seq         INTEGER PRIMARY KEY,
  at          INTEGER NOT NULL,
  nth         INTEGER NOT NULL,
  bytes_end   INTEGER NOT NULL,
  least_role  TEXT    NOT NULL,
  session     TEXT,
  text        TEXT    NOT NULL
) STRICT;

CREATE INDEX event_session ON event (session) WHERE session IS NOT NULL;
