"""What a server of tests answers by a script, and a weak model's advice for a search.

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
    seen = [document["parameters"], document["wanted"]["trial"], len(messages)]
    drawn = random.Random(json.dumps(seen))
    values = {name: _near(told, drawn) for name, told in document["parameters"].items()}
    return json.dumps({"values": values, "why": "the default is a good place to begin"})


def _near(told: Mapping[str, Any], drawn: random.Random) -> Any:
    """A value near the default."""
    default = told["default"]
    if told["kind"] not in ("number", "integer"):
        return default if "options" not in told or drawn.random() < 0.7 else drawn.choice(told["options"])
    low, high = float(told["low"]), float(told["high"])
    log = told.get("scale") == "log"
    ends = (math.log(low), math.log(high)) if log else (low, high)
    centre = math.log(default) if log else float(default)
    at = min(ends[1], max(ends[0], drawn.gauss(centre, _WANDERING * (ends[1] - ends[0]))))
    value = min(high, max(low, math.exp(at) if log else at))
    if told["kind"] == "integer" or "step" in told:
        step = told.get("step") or 1
        value = low + step * min(round((value - low) / step), math.floor((high - low) / step + 1e-9))
        return int(value) if told["kind"] == "integer" else float(f"{value:.12g}")
    return value
