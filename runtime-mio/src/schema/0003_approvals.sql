-- What was asked for and why, and approvals that outlive the agent that asked.

ALTER TABLE tool_call ADD COLUMN kind TEXT NOT NULL DEFAULT 'tool';
ALTER TABLE tool_call ADD COLUMN approval TEXT CHECK (length(approval) = 64);
ALTER TABLE tool_call ADD COLUMN rule TEXT;
ALTER TABLE tool_call ADD COLUMN reason TEXT;
ALTER TABLE tool_call ADD COLUMN answers TEXT;
ALTER TABLE tool_call ADD COLUMN is_carried INTEGER NOT NULL DEFAULT 0 CHECK (is_carried IN (0, 1));

CREATE INDEX tool_call_approval ON tool_call (approval, n) WHERE approval IS NOT NULL;
