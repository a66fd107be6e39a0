"""A stand-in for the OpenAI Responses API, as far as codex uses it in these tests.

A request without tools is one of codex's own (titles and the like): it gets one word. Newer models call tools from a
program of their own (tool `exec`), older ones by name; both are scripted the same.
"""

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import script

USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 120,
}
ERRORS = {401: "invalid_api_key", 429: "rate_limit_exceeded", 529: "overloaded"}


def text_of(content):
    """The text of a content, which may be a plain string."""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def read(items):
    """What the person typed, and the result of the last tool if nothing was said since."""
    typed, result = [], None
    for item in items:
        if item.get("type") == "message" and item.get("role") == "user":
            text = text_of(item["content"])
            # What codex adds in the person's name looks like this.
            if not text.lstrip().startswith("<"):
                typed.append(text)
                result = None
        elif item.get("type") in ("function_call_output", "custom_tool_call_output"):
            result = text_of(item["output"])
    return typed, result


def tools_of(request):
    """The names of the tools that are offered, one way or the other."""
    offered = list(request.get("tools") or [])
    for item in request["input"]:
        if item.get("type") == "additional_tools":
            for tool in item["tools"]:
                offered += tool.get("tools", [tool])
    return {tool.get("name") for tool in offered}


def patch(path, text):
    """A change in the form that codex's models write."""
    return f"*** Begin Patch\n*** Add File: {path}\n+{text}\n*** End Patch\n"


def item_of(answer, tools):
    """The one item of an answer."""
    number = uuid.uuid4().hex
    if answer.tool is None:
        part = {"type": "output_text", "text": answer.text, "annotations": []}
        return {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [part]}
    name, *rest = answer.tool
    call = {"type": "custom_tool_call", "id": f"ctc_{number}", "call_id": f"call_{number}"}
    if "exec" in tools:
        command = f"exec_command({{cmd: {json.dumps(rest[0])}}})"
        change = f"apply_patch({json.dumps(patch(*rest))})" if name == "write" else command
        return {**call, "name": "exec", "input": f"text(await tools.{change})"}
    if name == "write":
        return {**call, "name": "apply_patch", "input": patch(*rest)}
    call = {**call, "type": "function_call", "id": f"fc_{number}"}
    name, arguments = ("exec_command", {"cmd": rest[0]}) if name == "run" else (name, rest[0])
    return {**call, "name": name, "arguments": json.dumps(arguments)}


def events(response, answer, tools):
    """The stream of one response, after https://platform.openai.com/docs/api-reference/responses-streaming."""
    item = {**item_of(answer, tools), "status": "completed"}
    yield "response.created", {"response": response}
    begun = {**item, "status": "in_progress"}
    begun.update({key: [] if key == "content" else "" for key in ("content", "arguments", "input") if key in item})
    yield "response.output_item.added", {"output_index": 0, "item": begun}
    if answer.tool is None:
        for number, word in enumerate(answer.text.split(" ")):
            time.sleep(answer.pause)
            if answer.is_dropped and number == script.WORDS_BEFORE_DROP:
                raise BrokenPipeError("as scripted")
            delta = {"item_id": item["id"], "output_index": 0, "content_index": 0}
            yield "response.output_text.delta", {**delta, "delta": word if number == 0 else " " + word}
    yield "response.output_item.done", {"output_index": 0, "item": item}
    done = {**response, "status": "completed", "output": [item], "usage": USAGE}
    yield "response.completed", {"response": done}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    script = script.Script()

    def log_message(self, *_):
        """Says nothing: the tests speak."""

    def do_GET(self):
        """Codex would rather speak over a WebSocket; after this it does without."""
        is_upgrade = "upgrade" in (self.headers.get("connection") or "").lower()
        self.reply(426 if is_upgrade else 404, {"error": {"message": "stub", "type": "not_found"}})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self.path.split("?")[0].endswith("/responses"):
            return self.do_GET()
        request = json.loads(body)
        tools = tools_of(request)
        answer = self.script.answer(*read(request["input"])) if tools else script.Answer(text="ok")
        if answer.status != 200:
            kind = ERRORS[answer.status]
            return self.reply(answer.status, {"error": {"message": answer.text, "type": kind, "code": kind}})
        response = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": request["model"],
            "status": "in_progress",
            "output": [],
            "error": None,
            "usage": None,
        }
        return self.stream(events(response, answer, tools))

    def stream(self, stream):
        """Answers with server-sent events; a client that has gone is no error."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for number, (name, data) in enumerate(stream):
                data = {"type": name, "sequence_number": number, **data}
                self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
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
        self.wfile.write(text)


def start():
    """Serves on a free port of the loopback until the process ends; returns the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"
