"""What a server of tests answers by a script, and what a model says that advises a search and knows little.

A script is a JSON list; the first entry answers the first request, and the last one all further ones. An
entry is a text, or a mapping with any of

    text      what the model says; JSON that is no text is written out
    status    200 if not given; the text is then the error
    raw       the whole body, in place of the interface's
    usage     in place of words counted; null for none
    delay_s   before anything is sent
    drip_s    one blank every 50 ms for so long, before the body: as gateways keep a connection open
"""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_WANDERING = 0.1
#: Kinds of parameters that have a scale, the first step on it, and how many messages a first question has.
_NUMBERS, _STEP, _FIRST = ("number", "integer"), 0.3, 2


class Script:
    """The entries, one after the other. Any number of threads may take them."""

    def __init__(self, path: Path) -> None:
        self._path, self._taken, self._lock = path, 0, threading.Lock()

    def take(self) -> dict[str, Any]:
        """The entry for the next request; the file is read anew, so that a test may change it."""
        entries = json.loads(self._path.read_text())
        with self._lock:
            entry = entries[min(self._taken, len(entries) - 1)]
            self._taken += 1
        return dict(entry) if isinstance(entry, dict) else {"text": entry}


def weak_advice(messages: list[dict[str, str]]) -> str:
    """The default with some noise, as a model says that has seen the names of the parameters before.

    It does not look at the results; what it says follows from the parameters and the number of the trial.
    """
    document = json.loads(messages[1]["content"])
    if "notebook" in document:
        return _researched(document, len(messages))
    seen = [document["parameters"], document["wanted"]["trial"], len(messages)]
    drawn = random.Random(json.dumps(seen))
    values = {name: _near(told, drawn) for name, told in document["parameters"].items()}
    return json.dumps({"values": values, "why": "the default is a good place to begin"})


def _near(told: Mapping[str, Any], drawn: random.Random) -> Any:
    """A value near the default."""
    default = told["default"]
    if told["kind"] not in _NUMBERS:
        return default if "options" not in told or drawn.random() < 0.7 else drawn.choice(told["options"])
    low, high = _ends(told)
    return _value(told, drawn.gauss(_place(told, default), _WANDERING * (high - low)))


def _ends(told: Mapping[str, Any]) -> tuple[float, float]:
    """The ends of a range on its scale."""
    return _place(told, told["low"]), _place(told, told["high"])


def _place(told: Mapping[str, Any], value: float) -> float:
    return math.log(value) if told.get("scale") == "log" else float(value)


def _value(told: Mapping[str, Any], place: float) -> Any:
    """The value of a range nearest to a place on its scale."""
    low, high = float(told["low"]), float(told["high"])
    ends = _ends(told)
    at = min(ends[1], max(ends[0], place))
    value = min(high, max(low, math.exp(at) if told.get("scale") == "log" else at))
    if told["kind"] == "integer" or "step" in told:
        step = told.get("step") or 1
        value = low + step * min(round((value - low) / step), math.floor((high - low) / step + 1e-9))
        return int(value) if told["kind"] == "integer" else float(f"{value:.12g}")
    return value


def _researched(document: Mapping[str, Any], turn: int) -> str:
    """One who knows nothing and is methodical: one parameter at a time, from the best, by the notebook.

    What was better is done again; what was worse is tried the other way, then with half the step. Refused,
    it moves all numbers a little.
    """
    parameters, experiments = document["parameters"], document["notebook"]["experiments"]
    best = document["best"][0]["values"] if document["best"] else {}
    values = {name: best.get(name, told["default"]) for name, told in parameters.items()}
    drawn = random.Random(json.dumps([document["wanted"]["trial"], turn, values, document.get("program")]))
    names = list(parameters)
    name = names[document["wanted"]["trial"] % len(names)]
    last = experiments[-1] if experiments else {"verdict": ""}
    if last["verdict"].startswith("better"):
        name = next((each for each in last["changed"] if parameters[each]["kind"] in _NUMBERS), name)
    worse = sum(name in each.get("changed", {}) and "worse" in each["verdict"] for each in experiments)
    share = (1 if worse % 2 == 0 else -1) * _STEP / 2 ** (worse // 2) * drawn.uniform(0.7, 1.3)
    values[name] = _moved(parameters[name], values[name], share, drawn)
    if turn > _FIRST:
        values |= {
            each: _near({**told, "default": values[each]}, drawn)
            for each, told in parameters.items() if told["kind"] in _NUMBERS
        }  # fmt: skip
    found = [f"{each['hypothesis']}: {each['verdict']}" for each in experiments[-3:]]
    return json.dumps({"findings": found, "hypothesis": f"{name} should be moved", "values": values})


def _moved(told: Mapping[str, Any], value: Any, share: float, drawn: random.Random) -> Any:
    """A value moved by a share of its range; another one where it has none."""
    if told["kind"] not in _NUMBERS:
        options = [each for each in told.get("options", []) if each != value]
        return drawn.choice(options) if options else value
    low, high = _ends(told)
    return _value(told, _place(told, value) + share * (high - low))
