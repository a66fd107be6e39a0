"""What only claude can do wrong."""

import stories
from talk import begin, failed, turn


def the_owners_own_rules_do_not_approve(world, provider):
    settings = world.home / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text('{"permissions": {"allow": ["Bash", "Bash(*)"]}}')
    stories.tool_denied(world, provider)


def people_see_that_it_tries_again(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "status 429 2")
    told = owner.wait("session.statusChanged", lambda event: "retry" in (event.get("reason") or ""))
    assert "429" in told["reason"], told
    owner.wait("session.messageUpdated", lambda event: "after 429" in event["content"])


def an_overloaded_model_fails_the_turn(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "status 529 1000")
    error = failed(owner, session)
    assert error["kind"] == "agent_failed" and "529" in error["message"], error
    assert turn(owner, session, "say still here") == "still here"


STORIES = [
    the_owners_own_rules_do_not_approve,
    people_see_that_it_tries_again,
    an_overloaded_model_fails_the_turn,
]
