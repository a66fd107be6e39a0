"""Drives the real claude through a real clawd. Runs in a network of its own: see real-agents.sh.

usage: run.py CLAWD CLAUDE
"""

import fcntl
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

import client
import model

PORT = 4300


def raise_loopback():
    """A new network has a loopback that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        ask = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(sock, 0x8913, ask))  # SIOCGIFFLAGS
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP


class World:
    """A daemon with a data directory, a home and a repository of its own."""

    def __init__(self, clawd, claude, api):
        self.clawd = clawd
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="clawd-real-"))
        self.data, self.home, self.repo = (self.root / name for name in ("data", "home", "repo"))
        for path in (self.data, self.home, self.repo):
            path.mkdir(mode=0o700)
        config = self.data / "config.toml"
        config.touch(mode=0o600)
        config.write_text(
            f'[provider.claude]\npath = "{claude}"\n\n[provider.claude.env]\n'
            f'ANTHROPIC_BASE_URL = "{api}"\nANTHROPIC_API_KEY = "dummy"\n'
            'DISABLE_TELEMETRY = "1"\nCLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC = "1"\n'
        )
        self.env = {"HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        self.daemon = None

    def start(self):
        """Starts the daemon and waits until it takes connections."""
        self.log = open(self.root / "log", "ab")
        self.daemon = subprocess.Popen(
            [self.clawd, "--data-dir", self.data, "serve"],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
                return
            except OSError:
                if self.daemon.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("clawd does not serve") from None
                time.sleep(0.05)

    def connect(self):
        """A client with the owner's token."""
        show = [self.clawd, "--data-dir", self.data, "token", "show"]
        token = subprocess.run(show, env=self.env, capture_output=True, text=True, check=True).stdout
        return client.Client(PORT, token.strip())

    def session(self, owner):
        """A new session in the repository."""
        return owner.call("session.create", repoPath=str(self.repo), provider="claude")["id"]

    def end(self, how=signal.SIGTERM):
        """Ends the daemon and waits for it."""
        self.daemon.send_signal(how)
        self.daemon.wait(timeout=20)

    def clear(self):
        """Ends what is left."""
        if self.daemon and self.daemon.poll() is None:
            self.end(signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)

    def said(self):
        """What the daemon wrote."""
        return (self.root / "log").read_text(errors="replace")


def no_agent_is_left():
    """Waits until no process of claude lives in this world of processes (security I4)."""
    deadline = time.monotonic() + 5
    while True:
        left = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ")
            except OSError:
                continue  # it has just ended
            if b"--permission-prompt-tool" in line:
                left.append(line)
        if not left:
            return
        assert time.monotonic() < deadline, f"agents outlive the daemon: {left}"
        time.sleep(0.05)


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

    def waits(event):
        call = event["toolCall"]
        return event["sessionId"] == session and call["status"] == "pending"

    return owner.wait("session.toolCallCreated", waits)["toolCall"]


def provider_is_found(world):
    found = world.connect().call("daemon.checkProvider", provider="claude")
    assert found["available"] and found["installed"] and found["authenticated"], found


def text_turn(world):
    owner = world.connect()
    text = turn(owner, world.session(owner), "say Hello from the model")
    assert text == "Hello from the model", text


def tool_allowed(world):
    owner = world.connect()
    session = world.session(owner)
    begin(owner, session, "run echo yes > allowed.txt")
    call = asked(owner, session)
    assert call["name"] == "Bash" and call["input"]["command"] == "echo yes > allowed.txt", call
    assert not (world.repo / "allowed.txt").exists(), "it ran before it was allowed"
    owner.call("tool.approve", sessionId=session, toolCallId=call["id"])
    text = finish(owner, session)
    assert "tool said:" in text, text
    assert (world.repo / "allowed.txt").read_text() == "yes\n"


def tool_denied(world):
    owner = world.connect()
    session = world.session(owner)
    begin(owner, session, "run echo no > denied.txt")
    call = asked(owner, session)
    owner.call("tool.reject", sessionId=session, toolCallId=call["id"], reason="not today")
    text = finish(owner, session)
    assert "not today" in text, text
    assert not (world.repo / "denied.txt").exists(), "it ran though it was denied"


def the_owners_own_rules_do_not_approve(world):
    settings = world.home / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text('{"permissions": {"allow": ["Bash", "Bash(*)"]}}')
    tool_denied(world)


def cancel_mid_stream(world):
    owner = world.connect()
    session = world.session(owner)
    begin(owner, session, "stream 1000")

    def speaks(event):
        return event["sessionId"] == session and "word3" in event["content"]

    owner.wait("session.messageUpdated", speaks)
    owner.call("session.cancel", sessionId=session)

    def is_idle(event):
        return event["sessionId"] == session and event["status"] == "idle"

    owner.wait("session.statusChanged", is_idle, seconds=20)
    messages = owner.call("session.getMessages", sessionId=session)
    assert "word3" in messages[-1]["content"] and "word999" not in messages[-1]["content"], messages
    assert turn(owner, session, "say still here") == "still here"


def resume_after_kill(world):
    owner = world.connect()
    session = world.session(owner)
    turn(owner, session, "say 42")
    world.end(signal.SIGKILL)
    no_agent_is_left()
    world.start()
    text = turn(world.connect(), session, "recall")
    assert "say 42" in text, text


STORIES = [
    provider_is_found,
    text_turn,
    tool_allowed,
    tool_denied,
    the_owners_own_rules_do_not_approve,
    cancel_mid_stream,
    resume_after_kill,
]


def main(clawd, claude):
    """Plays every story on a daemon of its own; returns how many failed."""
    raise_loopback()
    api = model.start()
    failed = 0
    for story in STORIES:
        world = World(clawd, claude, api)
        try:
            world.start()
            story(world)
            world.end()
            no_agent_is_left()
            print(f"ok      {story.__name__}", flush=True)
        except Exception:  # a story that fails in any way has failed; the others are still played
            failed += 1
            print(f"FAILED  {story.__name__}\n{traceback.format_exc()}", flush=True)
            print(f"the daemon said:\n{world.said()}", flush=True)
        finally:
            world.clear()
    print(f"{len(STORIES) - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
