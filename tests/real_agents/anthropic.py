"""A stand-in for the Anthropic Messages API, as far as claude uses it in these tests.

A request without tools is one of claude's own (titles and the like): it gets one word.
"""

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import script

USAGE = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 20,
}
ERRORS = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}


def blocks(message):
    """The blocks of a message, whose content may be a plain string."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def said(message):
    """What the person typed: not what claude adds in their name."""
    texts = [block["text"] for block in blocks(message) if block["type"] == "text"]
    return [text for text in texts if not text.lstrip().startswith("<")]


def read(messages):
    """What the person typed, and the result of the last tool if nothing was said since."""
    person = [message for message in messages if message["role"] == "user"]
    results = [block for block in blocks(person[-1]) if block["type"] == "tool_result"]
    result = None
    if results and not said(person[-1]):
        result = results[-1].get("content", "")
        if not isinstance(result, str):
            result = " ".join(block.get("text", "") for block in result)
    return [text for message in person for text in said(message)], result


def block_of(answer):
    """The one block of an answer."""
    if answer.tool is None:
        return {"type": "text", "text": answer.text}
    name, *rest = answer.tool
    if name == "run":
        name, tool = "Bash", {"command": rest[0], "description": "as scripted"}
    else:
        name, tool = "Write", {"file_path": rest[0], "content": rest[1]}
    return {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex}", "name": name, "input": tool}


def events(message, answer):
    """The stream of one message, after https://docs.anthropic.com/en/api/messages-streaming."""
    block = block_of(answer)
    yield "message_start", {"message": message}
    if block["type"] == "text":
        yield "content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}
        for number, word in enumerate(block["text"].split(" ")):
            time.sleep(answer.pause)
            if answer.is_dropped and number == script.WORDS_BEFORE_DROP:
                raise BrokenPipeError("as scripted")
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
    script = script.Script()

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
        answer = script.Answer(text="ok")
        if request.get("tools"):
            answer = self.script.answer(*read(request["messages"]))
        if answer.status != 200:
            error = {"type": ERRORS[answer.status], "message": "as scripted"}
            return self.reply(answer.status, {"type": "error", "error": error})
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
            return self.stream(events(message, answer))
        block = block_of(answer)
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
        if status == 429:
            self.send_header("retry-after", "1")
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
