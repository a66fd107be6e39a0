"""What a person says to a session, and what comes of it."""


def turn(owner, session, prompt):
    """Sends a prompt and waits for the end of its turn; returns the assistant's text."""
    begin(owner, session, prompt)
    return finish(owner, session)


def begin(owner, session, prompt):
    """Sends a prompt."""
    owner.call("session.sendMessage", sessionId=session, content=prompt)


def finish(owner, session):
    """Waits for the end of a turn; returns the assistant's text in it."""

    def is_end(event):
        return event["sessionId"] == session and event["status"] in ("idle", "error")

    event = owner.wait("session.statusChanged", is_end)
    messages = owner.call("session.getMessages", sessionId=session)
    if event["status"] == "error":
        raise AssertionError(f"the turn failed: {event.get('reason')}: {messages[-1]}")
    last_prompt = max(n for n, message in enumerate(messages) if message["role"] == "user")
    answers = [m["content"] for m in messages[last_prompt:] if m["role"] == "assistant"]
    return "\n".join(answers)


def asked(owner, session):
    """Waits for the call that waits for a person."""
    asks = owner.wait("tool.approvalRequested", lambda event: event["sessionId"] == session)
    assert asks["toolCall"]["status"] == "pending", asks
    return asks["toolCall"]


def is_status(session, *statuses):
    """Whether an event says that the session is in one of these states."""
    return lambda event: event["sessionId"] == session and event["status"] in statuses


def failed(owner, session, seconds=60):
    """Waits for a turn that ends badly; returns its error."""
    owner.wait("session.statusChanged", is_status(session, "error"), seconds)
    messages = owner.call("session.getMessages", sessionId=session)
    return messages[-1]["metadata"]["error"]
