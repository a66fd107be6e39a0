-- Where the audit log ends: exactly one row. It is written in the transaction that the lines tell of, so that lines
-- that go missing at the end of the file are missed. `synced` is the last line that had surely reached the disk.
CREATE TABLE audit (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  n       INTEGER NOT NULL,
  head    BLOB    NOT NULL CHECK (length(head) = 32),
  synced  INTEGER NOT NULL
) STRICT;

INSERT INTO audit (one, n, head, synced) VALUES (1, 0, zeroblob(32), 0);
