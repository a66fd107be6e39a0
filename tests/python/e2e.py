"""Drives a real daemon with a client that was written from the wire's description alone.

Usage: e2e.py CLAWD SCRIPTED_CLAUDE. Prints each check, then `N passed, M failed`; exits 1 if one failed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Awaitable, Callable

from clawd_client import Client, Closed, RpcError


class Site:
    """A temporary home with a daemon in it."""

    def __init__(self, root: Path, clawd: str, claude: str) -> None:
        self.data, self.repo, self.home = root / "data", root / "repo", root / "home"
        for directory in (self.data, self.repo, self.home):
            directory.mkdir(mode=0o700)
        config = self.data / "config.toml"
        config.touch(mode=0o600)
        config.write_text(f'[provider.claude]\npath = "{claude}"\n')
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8"}
        self.process = subprocess.Popen(
            [clawd, "serve", "--port", "0", "--data-dir", str(self.data)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise SystemExit(f"clawd serve ended with {self.process.wait()}:\n{said}")

    @property
    def token(self) -> str:
        return (self.data / "auth_token").read_text().strip()

    async def owner(self) -> Client:
        return await Client.open(self.port, self.token)


async def refused(code: int, call: Awaitable[Any]) -> RpcError:
    """The call is answered with this error."""
    try:
        result = await call
    except RpcError as error:
        assert error.code == code, error
        return error
    raise AssertionError(f"not refused: {result}")


async def pair(owner: Client, phone: Client, role: str) -> dict[str, Any]:
    window = await owner.call("daemon.pairPin", role=role, confirm=False)
    assert re.fullmatch(r"\d{6}", window["pin"]) and window["expires_in_seconds"] > 0
    device = await phone.call("device.pair", pin=window["pin"], name="my phone", platform="ios")
    assert device["device_token"].startswith("clawd_d_") and device["role"] == role
    return device


async def check_authentication(site: Site) -> None:
    async with await Client.open(site.port) as client:
        assert (await client.call("daemon.ping"))["pong"] is True
        answer = await client.call("daemon.auth", token=site.token)
        assert answer["authenticated"] is True and answer["role"] == "owner"
        assert answer["protocolVersion"] == 1 and isinstance(answer["cursor"], (int, str))
        await client.event("daemon.ready")
        status = await client.call("daemon.status")
        assert status["port"] == site.port and status["connections"] >= 1


async def check_a_wrong_token(site: Site) -> None:
    async with await Client.open(site.port) as client:
        error = await refused(-32004, client.call("daemon.auth", token="clawd_l_wrong"))
        assert error.kind == "unauthorized"
        assert await client.closed(2) == 1008
    async with await Client.open(site.port) as client:
        await refused(-32004, client.call("session.list"))
        assert await client.closed(2) == 1008


async def check_errors(site: Site) -> None:
    async with await site.owner() as client:
        await refused(-32601, client.call("no.such"))
        error = await refused(-32602, client.call("session.get"))
        assert "sessionId" in error.message, error
        missing = "00000000-0000-4000-8000-000000000000"
        await refused(-32001, client.call("session.get", sessionId=missing))
        await refused(-32005, client.call("session.create", repoPath="/nowhere", provider="claude"))


async def new_session(client: Client, site: Site) -> str:
    session = await client.call("session.create", repoPath=str(site.repo), provider="claude")
    assert session["status"] == "idle" and session["provider"] == "claude"
    return session["id"]


async def check_a_streamed_turn(site: Site) -> None:
    async with await site.owner() as client, await site.owner() as viewer:
        session = await new_session(client, site)
        await viewer.event("session.created")
        message = await client.call("session.sendMessage", sessionId=session, content="stream 30")
        assert message["role"] == "user" and message["status"] == "done"
        for each in (client, viewer):
            await each.event("session.statusChanged", lambda e: e["status"] == "running")
            begun = await each.event(
                "session.messageCreated", lambda e: e["message"]["role"] == "assistant"
            )
            done = await each.event("session.messageUpdated", lambda e: e["status"] == "done")
            assert done["messageId"] == begun["message"]["id"] and done["content"]
            await each.event("session.statusChanged", lambda e: e["status"] == "idle")
        history = await client.call("session.getMessages", sessionId=session)
        assert [entry["role"] for entry in history] == ["user", "assistant"]
        assert history[1]["content"] == done["content"]


async def ask(client: Client, session: str, command: str) -> str:
    await client.call("session.sendMessage", sessionId=session, content=f"tool {command}")
    call = await client.event(
        "session.toolCallCreated", lambda event: event["toolCall"]["status"] == "pending"
    )
    assert call["toolCall"]["requiresApproval"] is True
    return call["toolCall"]["id"]


async def check_tools(site: Site) -> None:
    async with await site.owner() as client:
        session = await new_session(client, site)
        allowed, denied = site.repo / "allowed", site.repo / "denied"
        call = await ask(client, session, f"touch {allowed}")
        waiting = (await client.call("approval.list"))["approvals"]
        assert [entry["toolCallId"] for entry in waiting] == [call]
        assert not allowed.exists()
        answer = await client.call("tool.approve", sessionId=session, toolCallId=call)
        assert answer == {"approved": True}
        await client.event("session.statusChanged", lambda event: event["status"] == "idle")
        assert allowed.exists()
        call = await ask(client, session, f"touch {denied}")
        answer = await client.call("tool.reject", sessionId=session, toolCallId=call, reason="no")
        assert answer == {"rejected": True}
        await client.event("session.statusChanged", lambda event: event["status"] == "idle")
        assert not denied.exists()


async def check_a_device(site: Site) -> None:
    async with await site.owner() as owner, await Client.open(site.port) as phone:
        device = await pair(owner, phone, "approve")
        paired = await owner.event("device.paired")
        assert paired["device_id"] == device["device_id"] and paired["platform"] == "ios"
        await refused(-32002, phone.call("session.create", repoPath=str(site.repo)))
        async with await Client.open(site.port, device["device_token"]) as again:
            listed = await owner.call("device.list")
            assert [entry["id"] for entry in listed] == [device["device_id"]]
            assert device["device_token"] not in str(listed)
            began = time.monotonic()
            assert await owner.call("device.revoke", id=device["device_id"]) == {"revoked": True}
            assert await phone.closed(1) == 1008
            assert await again.closed(1) == 1008
            assert time.monotonic() - began < 1
        try:
            await phone.call("session.list")
            raise AssertionError("a revoked device was answered")
        except Closed as closed:
            assert closed.code == 1008
        async with await Client.open(site.port) as late:
            await refused(-32004, late.call("daemon.auth", token=device["device_token"]))


# What a P-256 public key begins with in DER, up to its 65 bytes (RFC 5480, section 2.1.1.1).
P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")


def pinned(port: int, daemon_id: str) -> ssl.SSLContext:
    """TLS to the daemon with this id and to nobody else."""
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    der = ssl.PEM_cert_to_DER_cert(pem)
    at = der.index(P256)
    key = hashlib.sha256(der[at : at + len(P256) + 65]).digest()
    assert base64.b32encode(key).decode().rstrip("=").lower() == daemon_id
    context = ssl.create_default_context(cadata=pem)
    context.check_hostname = False
    assert context.verify_mode == ssl.CERT_REQUIRED
    return context


async def check_a_device_over_tls(site: Site) -> None:
    async with await site.owner() as owner:
        window = await owner.call("daemon.pairPin", role="full", confirm=False)
        shown = json.loads(window["qrPayload"])
        tls = pinned(site.port, shown["daemonId"])
        async with await Client.open(site.port, tls=tls) as tablet:
            device = await tablet.call(
                "device.pair",
                pairingId=shown["pairingId"],
                ticket=shown["ticket"],
                name="my tablet",
                platform="android",
            )
        async with await Client.open(site.port, device["device_token"], tls) as tablet:
            session = await new_session(tablet, site)
            await tablet.call("session.sendMessage", sessionId=session, content="stream 300")
            await tablet.event("session.statusChanged", lambda event: event["status"] == "idle")
            history = await tablet.call("session.getMessages", sessionId=session)
            assert [entry["role"] for entry in history] == ["user", "assistant"]
            assert await owner.call("device.revoke", id=device["device_id"]) == {"revoked": True}
            assert await tablet.closed(1) == 1008
    async with await Client.open(site.port, tls=tls) as thief:
        await refused(-32004, thief.call("daemon.auth", token=site.token))


async def check_older_tls(site: Site) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", site.port)) as plain:
        with context.wrap_socket(plain) as secure:
            assert secure.version() == "TLSv1.3" and not secure.session_reused
            assert secure.session is None or not secure.session.has_ticket
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", site.port)) as plain:
        try:
            context.wrap_socket(plain)
            raise AssertionError("TLS 1.2 was spoken")
        except ssl.SSLError as error:
            assert error.reason == "TLSV1_ALERT_PROTOCOL_VERSION", error


async def check_shutdown(site: Site) -> None:
    async with await site.owner() as client:
        assert await client.call("daemon.shutdown") == {}
        assert await client.closed(5) == 1001
    assert site.process.wait(timeout=10) == 0


CHECKS: list[Callable[[Site], Awaitable[None]]] = [
    check_authentication,
    check_a_wrong_token,
    check_errors,
    check_a_streamed_turn,
    check_tools,
    check_a_device,
    check_a_device_over_tls,
    check_older_tls,
    check_shutdown,
]


def main() -> int:
    clawd, claude = (os.path.abspath(path) for path in sys.argv[1:3])
    failed = 0
    with tempfile.TemporaryDirectory(prefix="clawd-") as root:
        site = Site(Path(root), clawd, claude)
        try:
            for check in CHECKS:
                name = check.__name__.removeprefix("check_").replace("_", " ")
                try:
                    asyncio.run(check(site))
                    print(f"ok      {name}")
                except Exception:
                    failed += 1
                    print(f"FAILED  {name}\n{traceback.format_exc()}")
        finally:
            site.process.kill()
            site.process.wait()
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
