"""What the stand-in for a model answers: scripted by the person's last message, the same for every agent.

    say TEXT          answers TEXT
    stream N          answers N words, 50 ms apart
    run CMD           calls the agent's shell with CMD; when the result comes, answers `tool said: …`
    write FILE TEXT   calls the agent's tool for files; when the result comes, answers `tool said: …`
    call NAME JSON    calls a tool of the agent's own with these arguments; answers as above
    recall            answers all earlier messages of the person, which shows what the agent has kept
    status CODE N     refuses the first N requests with this HTTP status, then answers `after CODE`
    drop N            breaks off the first N answers in their midst, then answers `after N`
"""

import collections
import dataclasses
import json
import threading

WORDS_BEFORE_DROP = 5


@dataclasses.dataclass
class Answer:
    """One answer: a text, a tool call, or a failure."""

    text: str = ""
    pause: float = 0.0
    tool: tuple | None = None
    status: int = 200
    is_dropped: bool = False


class Script:
    """Counts what was asked, which is all that it keeps."""

    def __init__(self):
        self.asked = collections.Counter()
        self.lock = threading.Lock()

    def answer(self, typed, result):
        """The answer to what a person typed, oldest first; `result` is what the last tool said, if one was called since."""
        if result is not None:
            return Answer(text=f"tool said: {result}")
        last = typed[-1] if typed else ""
        with self.lock:
            self.asked[last] += 1
            times = self.asked[last]
        word, _, rest = last.partition(" ")
        if word == "say":
            return Answer(text=rest)
        if word == "stream":
            return Answer(text=" ".join(f"word{n}" for n in range(int(rest))), pause=0.05)
        if word == "run":
            return Answer(tool=("run", rest))
        if word == "write":
            return Answer(tool=("write", *rest.split(" ", 1)))
        if word == "call":
            name, arguments = rest.split(" ", 1)
            return Answer(tool=(name, json.loads(arguments)))
        if word == "recall":
            return Answer(text="you said: " + " | ".join(typed[:-1]))
        if word == "status":
            code, count = (int(number) for number in rest.split())
            return Answer(status=code) if times <= count else Answer(text=f"after {code}")
        if word == "drop":
            is_dropped = times <= int(rest)
            return Answer(text=" ".join(["half"] * 10) if is_dropped else f"after {rest}", is_dropped=is_dropped)
        return Answer(text=f"unscripted: {last}")
