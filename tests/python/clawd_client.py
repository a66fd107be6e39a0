"""A client for clawd, written from the wire's description alone, as anybody's would be.

Owns one connection: requests with their answers, and events in the order they came. It knows nothing of the daemon's
sources. Needs `websockets`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from typing import Any, Callable

import websockets
from websockets.asyncio.client import connect

PATIENCE = 20.0


class RpcError(Exception):
    """The daemon answered no."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')}")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.kind: str = (error.get("data") or {}).get("kind", "")


class Closed(Exception):
    """The connection is over."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class Client:
    """One connection. Use `async with await Client.open(port) as client`."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._events: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self._closed: Closed | None = None
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(
        cls, port: int, token: str | None = None, tls: ssl.SSLContext | None = None
    ) -> "Client":
        """Connects and, with a token, authenticates."""
        url = f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/"
        client = cls(await connect(url, compression=None, max_size=8 << 20, ssl=tls))
        if token is not None:
            await client.call("daemon.auth", token=token)
        return client

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()
        await self._reader

    async def _read(self) -> None:
        try:
            async for text in self._socket:
                self._take(json.loads(text))
        except websockets.ConnectionClosed:
            pass
        self._closed = Closed(self._socket.close_code)
        self._news.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._closed)

    def _take(self, message: dict[str, Any]) -> None:
        if "method" in message:
            self._events.append(message)
            self._news.set()
            return
        future = self._waiting.pop(message["id"], None)
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(RpcError(message["error"]))
        else:
            future.set_result(message["result"])

    async def call(self, method: str, **params: Any) -> Any:
        """The result of a call, or `RpcError`, or `Closed`."""
        if self._closed is not None:
            raise self._closed
        request = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[request] = future
        text = json.dumps({"jsonrpc": "2.0", "id": request, "method": method, "params": params})
        try:
            await self._socket.send(text)
        except websockets.ConnectionClosed:
            await self._reader
        async with asyncio.timeout(PATIENCE):
            return await future

    async def event(
        self, method: str, is_it: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> dict[str, Any]:
        """The params of the first such event, which is taken out; it may have come before."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for at, event in enumerate(self._events):
                    if event["method"] == method and is_it(event["params"]):
                        return self._events.pop(at)["params"]
                if self._closed is not None:
                    raise self._closed
                self._news.clear()
                await self._news.wait()

    async def closed(self, within: float) -> int | None:
        """Waits for the end of the connection; the close code."""
        async with asyncio.timeout(within):
            await asyncio.shield(self._reader)
        return self._socket.close_code
