"""What only codex can do wrong."""

import signal

import stories
from talk import asked, begin, failed, finish, turn

RULE = 'prefix_rule(pattern=["touch"], decision="allow")\n'


def the_program_itself_is_run(world, provider):
    """What npm installs as `codex` is a script that starts the program."""
    found = world.connect().call("daemon.checkProvider", provider=provider)
    assert not found["path"].endswith(".js"), found


def the_owners_own_rules_keep_codex_out(world, provider):
    """Codex would run what they allow without asking, so no conversation is opened."""
    owner = world.connect()
    session = world.session(owner, provider)
    rules = world.home / ".codex" / "rules"
    rules.mkdir()
    (rules / "default.rules").write_text(RULE)
    begin(owner, session, "run touch ruled.txt")
    error = failed(owner, session)
    assert "default.rules" in error["message"], error
    assert not (world.repo / "ruled.txt").exists(), "it ran without being asked for"
    (rules / "default.rules").unlink()
    assert turn(owner, session, "say still here") == "still here"


def a_trusted_repository_brings_nothing_along(world, provider):
    """Neither its rules nor its servers count, not even where the owner trusts it when alone with codex."""
    config = world.home / ".codex" / "config.toml"
    trusted = f'\n[projects."{world.repo}"]\ntrust_level = "trusted"\n'
    config.write_text(config.read_text() + trusted)
    own = world.repo / ".codex"
    (own / "rules").mkdir(parents=True)
    (own / "rules" / "x.rules").write_text(RULE)
    touch = f'command = "/usr/bin/touch"\nargs = ["{world.repo}/served.txt"]\n'
    (own / "config.toml").write_text(f"[mcp_servers.evil]\n{touch}")
    inner = world.repo / "inner"
    inner.mkdir()
    (world.repo / ".git").mkdir()
    before = config.read_text()
    owner = world.connect()
    for place in (world.repo, inner):
        create = {"repoPath": str(place), "provider": provider}
        session = owner.call("session.create", **create)["id"]
        begin(owner, session, f"run touch {place}/ruled.txt")
        call = asked(owner, session)
        owner.call("tool.reject", sessionId=session, toolCallId=call["id"])
        finish(owner, session)
        assert not (place / "ruled.txt").exists(), "it ran though it was denied"
    assert not (world.repo / "served.txt").exists(), "the repository's server was started"
    assert config.read_text() == before, "codex has changed the owner's configuration"


def the_owners_servers_are_not_started(world, provider):
    """Codex would believe them which of their tools are harmless."""
    config = world.home / ".codex" / "config.toml"
    touch = f'command = "/usr/bin/touch"\nargs = ["{world.root}/served.txt"]\n'
    config.write_text(config.read_text() + f'\n[mcp_servers."my.own"]\n{touch}')
    owner = world.connect()
    assert turn(owner, world.session(owner, provider), "say hi") == "hi"
    assert not (world.root / "served.txt").exists(), "the server was started"


def looking_asks_as_well(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "run ls")
    call = asked(owner, session)
    assert call["input"]["command"] == "ls" and call["input"]["shell"].endswith(" -lc"), call
    owner.call("tool.reject", sessionId=session, toolCallId=call["id"])
    finish(owner, session)


def what_is_allowed_runs_outside_of_a_sandbox_and_once(world, provider):
    """Codex tries a command in its sandbox first, if a turn has one; what it does late, it does there alone."""
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, f"run sleep 1; echo once >> {world.root}/outside.txt; true")
    owner.call("tool.approve", sessionId=session, toolCallId=asked(owner, session)["id"])
    finish(owner, session)
    assert (world.root / "outside.txt").read_text() == "once\n"


def a_conversation_moves_to_another_model_beside_another(world, provider):
    """It is left and opened again in the same process, which goes on with the other one."""
    owner = world.connect()
    other, session = (world.session(owner, provider) for _ in range(2))
    assert turn(owner, other, "say one") == "one"
    assert turn(owner, session, "say two") == "two"
    owner.call("session.setModel", sessionId=session, model="gpt-5.5-mini")
    text = turn(owner, session, "recall")
    assert "say two" in text and "say one" not in text, text
    assert owner.call("session.get", sessionId=session)["model"] == "gpt-5.5-mini"
    text = turn(owner, other, "recall")
    assert "say one" in text and "say two" not in text, text


def a_killed_daemon_leaves_no_command(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "run echo $$ > pid.txt; exec tail -f /dev/null")
    owner.call("tool.approve", sessionId=session, toolCallId=asked(owner, session)["id"])
    path = world.repo / "pid.txt"
    stories.until(lambda: path.exists() and path.read_text().strip())
    world.end(signal.SIGKILL)
    stories.until(lambda: not any(b"tail\0-f" in line for line in stories.commands()), seconds=5)
    world.start()


def a_models_own_program_asks_too(world, provider):
    """The model that codex uses by itself calls tools from within a script."""
    config = world.home / ".codex" / "config.toml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("model ")]
    config.write_text("\n".join(lines) + "\n")
    stories.tool_allowed(world, provider)
    stories.tool_denied(world, provider)
    stories.file_change(world, provider)


def too_many_requests_end_the_turn(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "status 429 1000")
    error = failed(owner, session)
    assert "429" in error["message"] or "rate" in error["message"].lower(), error


def a_question_of_the_model_is_refused(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    question = '{"questions": [{"id": "q", "header": "Q", "question": "Which?", "options": [{"label": "A", "description": "a"}, {"label": "B", "description": "b"}]}]}'
    text = turn(owner, session, f"call request_user_input {question}")
    assert text.startswith("tool said:"), text


def nobody_logged_in_is_said_at_once(world, provider):
    (world.home / ".codex" / "auth.json").unlink()
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "say hi")
    error = failed(owner, session, seconds=5)
    assert error["kind"] == "provider_not_available" and "codex login" in error["hint"], error


STORIES = [
    the_program_itself_is_run,
    the_owners_own_rules_keep_codex_out,
    a_trusted_repository_brings_nothing_along,
    the_owners_servers_are_not_started,
    looking_asks_as_well,
    what_is_allowed_runs_outside_of_a_sandbox_and_once,
    a_conversation_moves_to_another_model_beside_another,
    a_killed_daemon_leaves_no_command,
    a_models_own_program_asks_too,
    too_many_requests_end_the_turn,
    a_question_of_the_model_is_refused,
    nobody_logged_in_is_said_at_once,
]
