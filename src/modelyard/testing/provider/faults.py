"""The faults that a script can ask for: each one changes how an answer is written, or where it stops.

A fault that stops a stream stops a body that is no stream in the same way, after a share of its bytes; a
fault of a stream's form leaves such a body as it is. The tables `FAULTS` and `AT_ACCEPT` name them all.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from modelyard.testing.provider.answers import WRONG_USAGE, Answer
from modelyard.testing.provider.asked import Refusal
from modelyard.testing.provider.plans import (
    LAST_CHUNK,
    PLAIN,
    End,
    Plan,
    Send,
    Step,
    Style,
    Wait,
    chunk,
    error_body,
    event,
    plain,
    whole,
)

_NO_SUCH_STATUS = b"HTTP/9.9 abc what\r\n\r\n"
_PAGE = b"<!doctype html><html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>"
_INTERIM = (
    b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
)
_ENDS = ("reset", "fin", "clean")
KILLED = 86


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a fault is made of: the answer without it, the parameters of the script, and the time."""

    made: Answer
    given: Mapping[str, Any]
    now_s: float

    def plain(self, **style: Any) -> Plan:
        """The answer in another style."""
        return plain(self.made, dataclasses.replace(PLAIN, **style) if style else PLAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fault: its parameters with what they are if not given (a tuple lists words), and its plan."""

    parameters: Mapping[str, Any]
    plan: Callable[[Scene], Plan]


def _waiting_first(scene: Scene) -> Plan:
    made = scene.plain()
    return dataclasses.replace(made, steps=(Wait(seconds=scene.given["wait_s"]), *made.steps))


def _hang(scene: Scene) -> Plan:
    return Plan(status=0, steps=(Wait(seconds=scene.given["wait_s"]),), billed=False, end=End.CLOSE)


def _nothing(end: End) -> Callable[[Scene], Plan]:
    return lambda scene: Plan(status=0, steps=(), billed=False, end=end)


def _raw(data: bytes) -> Callable[[Scene], Plan]:
    """Bytes that are no answer, and the end of the connection."""
    return lambda scene: Plan(status=0, steps=(Send(data=data),), billed=False, end=End.CLOSE)


def _cut_headers(scene: Scene) -> Plan:
    first = _first(scene.plain()).data
    inside = first[: first.index(b"\r\n\r\n") - 5]
    return Plan(status=0, steps=(Send(data=inside),), billed=False, end=_end(scene))


def _status(scene: Scene) -> Plan:
    given, after = scene.given, scene.given["retry_after_s"]
    told = {
        "none": (),
        "seconds": (("retry-after", f"{after:g}"),),
        "date": (("retry-after", formatdate(scene.now_s + after, usegmt=True)),),
    }[given["retry_after"]]
    refusal = Refusal(status=given["code"], message=given["message"], code=given["error_code"] or None)
    body, kind = {
        "openai": (error_body(refusal), "application/json"),
        "html": (_PAGE, "text/html"),
        "empty": (b"", "application/json"),
    }[given["body"]]
    return whole(given["code"], body, told, kind=kind)


def _garbage_body(scene: Scene) -> Plan:
    first = _first(scene.plain())
    start = first.data.index(b"\r\n\r\n") + 4
    size = max(len(first.data) - start, 64)
    plan = whole(200, (b'{"choices": [{"message": \xff\xfe ' * size)[:size])
    return dataclasses.replace(plan, billed=True)


def _cut(scene: Scene) -> Plan:
    """The events up to one of them, and then the end of the connection."""
    sent, _ = _halves(scene)
    if _end(scene) is End.KEEP:
        return Plan(status=200, steps=(*sent, Send(data=LAST_CHUNK)), billed=True)
    return Plan(status=200, steps=sent, billed=True, end=_end(scene))


def _stall(scene: Scene) -> Plan:
    sent, left = _halves(scene)
    return Plan(status=200, steps=(*sent, Wait(seconds=scene.given["wait_s"]), *left), billed=True)


def _kill(scene: Scene) -> Plan:
    sent, _ = _halves(scene)
    return Plan(status=200, steps=sent, billed=True, end=End.EXIT)


def _stream_error(scene: Scene) -> Plan:
    """An error as an event inside of a stream; a body that is no stream becomes the error."""
    refusal = Refusal(status=scene.given["code"], message="The server had an error.", code="server_error")
    if not scene.made.asked.stream:
        return whole(refusal.status, error_body(refusal))
    sent, _ = _halves(scene)
    done = event(b"[DONE]") if scene.given["done"] else b""
    steps = (*sent, Send(data=chunk(event(error_body(refusal)) + done)), Send(data=LAST_CHUNK))
    return Plan(status=200, steps=steps, billed=True)


def _slow_tokens(scene: Scene) -> Plan:
    """A wait after every token, or one as long before a body that is no stream."""
    made, wait = scene.plain(), Wait(seconds=scene.given["wait_s"])
    if not scene.made.asked.stream:
        longer = Wait(seconds=wait.seconds * len(scene.made.pieces))
        return dataclasses.replace(made, steps=(longer, *made.steps))
    slow = [(step, wait) if isinstance(step, Send) and step.tokens else (step,) for step in made.steps]
    return dataclasses.replace(made, steps=tuple(itertools.chain.from_iterable(slow)))


def _closing(scene: Scene) -> Plan:
    made = scene.plain(headers=(("connection", "close"),))
    return dataclasses.replace(made, end=End.CLOSE)


def _closing_idle(scene: Scene) -> Plan:
    return dataclasses.replace(scene.plain(), idle_s=scene.given["after_s"])


def _many_headers(scene: Scene) -> Plan:
    value = "x" * scene.given["bytes"]
    return scene.plain(headers=tuple((f"x-extra-{i}", value) for i in range(scene.given["count"])))


def _interim(scene: Scene) -> Plan:
    made = scene.plain()
    return dataclasses.replace(made, steps=(Send(data=_INTERIM), *made.steps))


def _styled(**fixed: Any) -> Callable[[Scene], Plan]:
    """The answer in a style: what is fixed, and the parameters of the same name."""
    names = {field.name for field in dataclasses.fields(Style)}
    return lambda scene: scene.plain(**fixed, **{k: v for k, v in scene.given.items() if k in names})


def _end(scene: Scene) -> End:
    """The end that a cut asks for. A body whose length was promised has no clean end."""
    named = scene.given["end"]
    if named == "clean" and scene.made.asked.stream:
        return End.KEEP
    return End.RESET if named == "reset" else End.CLOSE


def _halves(scene: Scene) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The steps up to the nth event and those after; of a body that is no stream, two halves of it."""
    made = scene.plain()
    if scene.made.asked.stream:
        at = min(1 + scene.given["after"], len(made.steps) - 2)
        return made.steps[:at], made.steps[at:]
    first = _first(made)
    start = first.data.index(b"\r\n\r\n") + 4
    at = start + (len(first.data) - start) // 2
    return (Send(data=first.data[:at], tokens=first.tokens),), (Send(data=first.data[at:]),)


def _first(plan: Plan) -> Send:
    return next(step for step in plan.steps if isinstance(step, Send))


_CUT = {"after": 3, "end": _ENDS}
FAULTS: Mapping[str, Kind] = {
    # before an answer
    "hang": Kind(parameters={"wait_s": math.inf}, plan=_hang),
    "slow_first_byte": Kind(parameters={"wait_s": 1.0}, plan=_waiting_first),
    "reset": Kind(parameters={}, plan=_nothing(End.RESET)),
    "no_answer": Kind(parameters={}, plan=_nothing(End.CLOSE)),
    "garbage_status": Kind(parameters={}, plan=_raw(_NO_SUCH_STATUS)),
    "cut_headers": Kind(parameters={"end": _ENDS[:2]}, plan=_cut_headers),
    "interim": Kind(parameters={}, plan=_interim),
    # in place of an answer
    "status": Kind(
        parameters={
            "code": 503, "retry_after": ("none", "seconds", "date"), "retry_after_s": 1.0,
            "body": ("openai", "html", "empty"), "message": "The server is not able to answer.",
            "error_code": "",
        },
        plan=_status,
    ),
    "empty_body": Kind(parameters={}, plan=lambda scene: whole(200, b"")),
    "html_body": Kind(parameters={}, plan=lambda scene: whole(200, _PAGE, kind="text/html")),
    "garbage_body": Kind(parameters={}, plan=_garbage_body),
    # within an answer
    "cut": Kind(parameters=_CUT, plan=_cut),
    "stall": Kind(parameters={"after": 3, "wait_s": math.inf}, plan=_stall),
    "slow_tokens": Kind(parameters={"wait_s": 0.05}, plan=_slow_tokens),
    "stream_error": Kind(parameters={"after": 3, "code": 500, "done": False}, plan=_stream_error),
    "kill": Kind(parameters={"after": 3}, plan=_kill),
    # whole answers in an unusual form
    "usage": Kind(parameters={"usage": WRONG_USAGE}, plan=_styled()),
    "crlf": Kind(parameters={}, plan=_styled(newline=b"\r\n")),
    "comments": Kind(parameters={}, plan=_styled(comments=True)),
    "split": Kind(parameters={"split_bytes": 1}, plan=_styled()),
    "merged": Kind(parameters={"merged": 4}, plan=_styled()),
    "huge_event": Kind(parameters={"huge_bytes": 1 << 20}, plan=_styled()),
    "duplicate_done": Kind(parameters={}, plan=_styled(dones=2)),
    "missing_done": Kind(parameters={}, plan=_styled(dones=0)),
    "close_delimited": Kind(parameters={}, plan=_styled(close_delimited=True)),
    "extra_headers": Kind(parameters={"count": 40, "bytes": 100}, plan=_many_headers),
    "close_after": Kind(parameters={}, plan=_closing),
    "close_idle": Kind(parameters={"after_s": 0.05}, plan=_closing_idle),
}  # fmt: skip
#: Faults of a new connection, and their parameters.
AT_ACCEPT: Mapping[str, Mapping[str, Any]] = {"reset_on_accept": {}, "refuse": {"for_s": 1.0}}
