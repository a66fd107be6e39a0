"""A daemon with a home and a repository of its own, and what is left of it."""

import fcntl
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

import client

PORT = 4300

CONFIG = {
    "claude": lambda program, api: f"""
[provider.claude]
path = "{program}"

[provider.claude.env]
ANTHROPIC_BASE_URL = "{api}"
ANTHROPIC_API_KEY = "dummy"
DISABLE_TELEMETRY = "1"
CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC = "1"
""",
    "codex": lambda program, _: f"""
[provider.codex]
path = "{program}"
""",
}
AGENTS = [b"--permission-prompt-tool", b"app-server"]


def set_up_claude(world):
    """Claude takes all it needs from its environment."""


def set_up_codex(world):
    """Codex is logged in with a key, and asks our model."""
    own = world.home / ".codex"
    own.mkdir()
    (own / "config.toml").write_text(f'model = "gpt-5.5"\nopenai_base_url = "{world.api}"\n')
    login = [world.program, "login", "--with-api-key"]
    subprocess.run(login, env=world.env, input=b"sk-dummy", capture_output=True, check=True)


SET_UP = {"claude": set_up_claude, "codex": set_up_codex}


def raise_loopback():
    """A new network has a loopback that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        ask = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(sock, 0x8913, ask))  # SIOCGIFFLAGS
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP


class World:
    """A daemon with a data directory, a home and a repository of its own."""

    def __init__(self, clawd, provider, program, api):
        self.clawd, self.program, self.api = clawd, program, api
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="clawd-real-"))
        self.data, self.home, self.repo = (self.root / name for name in ("data", "home", "repo"))
        for path in (self.data, self.home, self.repo):
            path.mkdir(mode=0o700)
        config = self.data / "config.toml"
        config.touch(mode=0o600)
        config.write_text(CONFIG[provider](program, api))
        self.env = {"HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        self.daemon = None
        SET_UP[provider](self)

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

    def session(self, owner, provider):
        """A new session in the repository."""
        return owner.call("session.create", repoPath=str(self.repo), provider=provider)["id"]

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
    """Waits until no agent lives in this world of processes (security I4)."""
    deadline = time.monotonic() + 5
    while True:
        left = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ")
            except OSError:
                continue  # it has just ended
            if any(mark in line for mark in AGENTS):
                left.append(line)
        if not left:
            return
        assert time.monotonic() < deadline, f"agents outlive the daemon: {left}"
        time.sleep(0.05)
