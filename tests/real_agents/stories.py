"""What every agent must go through, and leave behind it."""

import fcntl
import os
import pathlib
import pty
import select
import signal
import struct
import subprocess
import termios
import time

from talk import asked, begin, failed, finish, is_status, turn
from world import no_agent_is_left


def provider_is_found(world, provider):
    found = world.connect().call("daemon.checkProvider", provider=provider)
    assert found["available"] and found["installed"] and found["authenticated"], found


def text_turn(world, provider):
    owner = world.connect()
    text = turn(owner, world.session(owner, provider), "say Hello from the model")
    assert text == "Hello from the model", text


def tool_allowed(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "run echo yes > allowed.txt")
    call = asked(owner, session)
    assert call["name"] == "Bash" and call["input"]["command"] == "echo yes > allowed.txt", call
    assert not (world.repo / "allowed.txt").exists(), "it ran before it was allowed"
    owner.call("tool.approve", sessionId=session, toolCallId=call["id"])
    text = finish(owner, session)
    assert "tool said:" in text, text
    assert (world.repo / "allowed.txt").read_text() == "yes\n"


def tool_denied(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "run echo no > denied.txt")
    call = asked(owner, session)
    owner.call("tool.reject", sessionId=session, toolCallId=call["id"], reason="not today")
    finish(owner, session)
    assert not (world.repo / "denied.txt").exists(), "it ran though it was denied"


def a_grant_is_for_one_input_only(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "run echo one >> grown.txt")
    call = asked(owner, session)
    owner.call("tool.approve", sessionId=session, toolCallId=call["id"], scope="session")
    finish(owner, session)
    turn(owner, session, "run echo one >> grown.txt")
    begin(owner, session, "run echo two >> grown.txt")
    call = asked(owner, session)
    assert call["input"]["command"] == "echo two >> grown.txt", call
    owner.call("tool.reject", sessionId=session, toolCallId=call["id"])
    finish(owner, session)
    assert (world.repo / "grown.txt").read_text() == "one\none\n"


def file_change(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    path = world.repo / "written.txt"
    begin(owner, session, f"write {path} as scripted")
    call = asked(owner, session)
    assert "as scripted" in str(call["input"]) and not path.exists(), call
    owner.call("tool.approve", sessionId=session, toolCallId=call["id"])
    finish(owner, session)
    assert path.read_text().strip() == "as scripted"


def cancel_mid_stream(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "stream 1000")

    def speaks(event):
        return event["sessionId"] == session and "word3" in event["content"]

    owner.wait("session.messageUpdated", speaks)
    owner.call("session.cancel", sessionId=session)
    owner.wait("session.statusChanged", is_status(session, "idle"), seconds=20)
    messages = owner.call("session.getMessages", sessionId=session)
    assert "word999" not in messages[-1]["content"], messages
    assert turn(owner, session, "say still here") == "still here"


def cancel_mid_command(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "run echo $$ > pid.txt; exec tail -f /dev/null")
    call = asked(owner, session)
    owner.call("tool.approve", sessionId=session, toolCallId=call["id"])
    path = world.repo / "pid.txt"
    until(lambda: path.exists() and path.read_text().strip())
    owner.call("session.cancel", sessionId=session)
    owner.wait("session.statusChanged", is_status(session, "idle"), seconds=20)
    until(lambda: not any(b"tail\0-f" in line for line in commands()))
    assert turn(owner, session, "say still here") == "still here"


def resume_after_kill(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    turn(owner, session, "say 42")
    world.end(signal.SIGKILL)
    no_agent_is_left()
    world.start()
    text = turn(world.connect(), session, "recall")
    assert "say 42" in text, text


def refused_credentials_fail_fast(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    begin(owner, session, "status 401 1000")
    error = failed(owner, session, seconds=30)
    assert error["kind"] == "provider_not_available" and "login" in error["hint"], error


def a_broken_stream_is_mended(world, provider):
    owner = world.connect()
    session = world.session(owner, provider)
    assert turn(owner, session, "drop 1") == "after 1"


def two_sessions_at_once(world, provider):
    owner = world.connect()
    sessions = [world.session(owner, provider) for _ in range(2)]
    for number, session in enumerate(sessions):
        begin(owner, session, f"run echo {number} > both{number}.txt")
    calls = [asked(owner, session) for session in sessions]
    for session, call in zip(sessions, calls):
        owner.call("tool.approve", sessionId=session, toolCallId=call["id"])
    for session in sessions:
        finish(owner, session)
    for number in range(2):
        assert (world.repo / f"both{number}.txt").read_text() == f"{number}\n"


def approved_on_a_terminal(world, provider):
    """`clawd run` asks on its terminal, and takes `y` for a yes."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [world.clawd, "--data-dir", world.data, "run", "-p", provider, "-C", world.repo]
    run = subprocess.Popen(
        [*command, "run echo typed > typed.txt"],
        env=world.env,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(slave), os.O_RDWR)),
    )
    os.close(slave)
    shown, has_answered, deadline = "", False, time.monotonic() + 60
    while run.poll() is None or select.select([master], [], [], 0)[0]:
        assert time.monotonic() < deadline, f"the terminal shows: {shown}"
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            shown += os.read(master, 4096).decode(errors="replace")
        except OSError:
            break
        if not has_answered and "[y]" in shown:
            assert "echo typed > typed.txt" in shown, shown
            has_answered = os.write(master, b"y\n") > 0
    os.close(master)
    assert run.wait(timeout=20) == 0, shown
    assert (world.repo / "typed.txt").read_text() == "typed\n", shown


def until(holds, seconds=20):
    """Waits for something that nobody announces."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def commands():
    """The command lines of all processes of this world."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes()
        except OSError:
            continue  # it has just ended


STORIES = [
    provider_is_found,
    text_turn,
    tool_allowed,
    tool_denied,
    a_grant_is_for_one_input_only,
    file_change,
    cancel_mid_stream,
    cancel_mid_command,
    resume_after_kill,
    refused_credentials_fail_fast,
    a_broken_stream_is_mended,
    two_sessions_at_once,
    approved_on_a_terminal,
]
