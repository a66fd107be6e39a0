"""A client of clawd: WebSocket (RFC 6455) and JSON-RPC 2.0, as much as a test needs."""

import base64
import json
import os
import queue
import socket
import struct
import threading
import time


class Client:
    """One authenticated connection. Events are kept until a test waits for them."""

    def __init__(self, port, token):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.stream = self.sock.makefile("rb")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.stream.read(1)
            if not byte:
                raise ConnectionError(f"no upgrade: {head!r}")
            head += byte
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(f"no upgrade: {head!r}")
        self.sock.settimeout(None)
        self.inbox = queue.Queue()
        self.events = []
        self.last_id = 0
        threading.Thread(target=self._read, daemon=True).start()
        self.call("daemon.auth", token=token)

    def call(self, method, **params):
        """Calls a method and returns its result; an error is raised."""
        self.last_id += 1
        request = {"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}
        self._send(1, json.dumps(request).encode())
        deadline = time.monotonic() + 20
        while True:
            message = self._next(deadline, f"the answer to {method}")
            if message.get("id") == self.last_id:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def wait(self, method, matches=lambda params: True, seconds=60):
        """Takes the first event of this name that matches, from those kept or still to come."""
        deadline = time.monotonic() + seconds
        while True:
            for number, event in enumerate(self.events):
                if event.get("method") == method and matches(event["params"]):
                    del self.events[number]
                    return event["params"]
            self.events.append(self._next(deadline, method))

    def _next(self, deadline, what):
        try:
            message = self.inbox.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            kept = [event.get("method") for event in self.events]
            raise TimeoutError(f"waited for {what}; came so far: {kept}") from None
        if message is None:
            raise ConnectionError(f"the daemon closed the connection while {what} was awaited")
        return message

    def _send(self, opcode, payload):
        mask = os.urandom(4)
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 0xFE, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0xFF, size)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.sock.sendall(head + mask + masked)

    def _read(self):
        try:
            while True:
                opcode, size = struct.unpack("!BB", self.stream.read(2))
                size &= 0x7F
                if size == 126:
                    (size,) = struct.unpack("!H", self.stream.read(2))
                elif size == 127:
                    (size,) = struct.unpack("!Q", self.stream.read(8))
                payload = self.stream.read(size)
                if opcode & 0x0F == 9:
                    self._send(10, payload)
                elif opcode & 0x0F == 1:
                    self.inbox.put(json.loads(payload))
                elif opcode & 0x0F == 8:
                    break
        except (OSError, struct.error, ValueError):
            pass
        self.inbox.put(None)
