-- The daemon's id is the fingerprint of its key, which is in a file of its own, and so is what it wants of a relay.
ALTER TABLE meta DROP COLUMN daemon_id;

-- A device's own key, where it showed one when it was paired: its token works with no other.
ALTER TABLE device ADD COLUMN key_sha256 BLOB CHECK (length(key_sha256) = 32);
