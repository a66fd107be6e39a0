"""A stand-in for the Anthropic Messages API, as far as claude uses it in these tests.

What it answers is scripted by the person's last message, so it keeps nothing between requests:

    say TEXT      answers TEXT
    stream N      answers N words, 50 ms apart
    run CMD       calls Bash with CMD; when the result comes, answers `tool said: …`
    recall        answers all earlier messages of the person, which shows what claude has kept

A request without tools is one of claude's own (titles and the like): it gets one word.
"""

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 20,
}


def blocks(message):
    """The blocks of a message, whose content may be a plain string."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def said(message):
    """What the person typed: not what claude adds in their name."""
    texts = [block["text"] for block in blocks(message) if block["type"] == "text"]
    return [text for text in texts if not text.lstrip().startswith("<")]


def answer(messages):
    """The block to answer with, and the seconds between its words."""
    person = [message for message in messages if message["role"] == "user"]
    results = [block for block in blocks(person[-1]) if block["type"] == "tool_result"]
    if results:
        content = results[-1].get("content", "")
        if not isinstance(content, str):
            content = " ".join(block.get("text", "") for block in content)
        return {"type": "text", "text": f"tool said: {content}"}, 0
    typed = [text for message in person for text in said(message)]
    word, _, rest = (typed[-1] if typed else "").partition(" ")
    if word == "run":
        tool = {"command": rest, "description": "as scripted"}
        return {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex}", "name": "Bash", "input": tool}, 0
    if word == "stream":
        return {"type": "text", "text": " ".join(f"word{n}" for n in range(int(rest)))}, 0.05
    if word == "recall":
        return {"type": "text", "text": "you said: " + " | ".join(typed[:-1])}, 0
    return {"type": "text", "text": rest if word == "say" else f"unscripted: {typed[-1:]}"}, 0


def events(message, block, pause):
    """The stream of one message, after https://docs.anthropic.com/en/api/messages-streaming."""
    yield "message_start", {"message": message}
    if block["type"] == "text":
        yield "content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}
        for number, word in enumerate(block["text"].split(" ")):
            time.sleep(pause)
            text = word if number == 0 else " " + word
            yield "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": text}}
    else:
        yield "content_block_start", {"index": 0, "content_block": {**block, "input": {}}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield "content_block_delta", {"index": 0, "delta": delta}
    yield "content_block_stop", {"index": 0}
    stop = "end_turn" if block["type"] == "text" else "tool_use"
    delta = {"stop_reason": stop, "stop_sequence": None}
    yield "message_delta", {"delta": delta, "usage": {"output_tokens": USAGE["output_tokens"]}}
    yield "message_stop", {}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Says nothing: the tests speak."""

    def do_HEAD(self):
        self.reply(200, {})

    def do_GET(self):
        self.reply(404, {"type": "error", "error": {"type": "not_found_error", "message": "stub"}})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self.path.startswith("/v1/messages") or "count_tokens" in self.path:
            return self.do_GET()
        request = json.loads(body)
        block, pause = {"type": "text", "text": "ok"}, 0
        if request.get("tools"):
            block, pause = answer(request["messages"])
        message = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**USAGE, "output_tokens": 1},
        }
        if request.get("stream"):
            return self.stream(events(message, block, pause))
        stop = "end_turn" if block["type"] == "text" else "tool_use"
        return self.reply(200, {**message, "content": [block], "stop_reason": stop, "usage": USAGE})

    def stream(self, stream):
        """Answers with server-sent events; a client that has gone is no error."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for name, data in stream:
                line = f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"
                self.wfile.write(line.encode())
                self.wfile.flush()
        except OSError:
            pass

    def reply(self, status, body):
        """Answers with JSON."""
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)


def start():
    """Serves on a free port of the loopback until the process ends; returns the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
