-- Whether clients were told of a tool call. Of one that was running without a decision it is not known: it may have been
-- meant to be told in a moment. It is told once more rather than never.
ALTER TABLE tool_call ADD COLUMN is_announced INTEGER NOT NULL DEFAULT 1 CHECK (is_announced IN (0, 1));

UPDATE tool_call SET is_announced = 0 WHERE status = 'running' AND decided_by IS NULL;
