"""A script of faults: reading it, and saying which rule a request or a connection meets.

Rules are tried in order and the first that matches counts. The numbers of a rule count the requests that
its model, endpoint, stream and marker admit, from 1, whether or not an earlier rule took them; those of a
rule for new connections count connections.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.core.faults import Section
from modelyard.testing.provider.asked import CHAT, COMPLETIONS, EMBEDDINGS, MODELS, Asked
from modelyard.testing.provider.faults import AT_ACCEPT, FAULTS

_ENDPOINTS = ("", CHAT, COMPLETIONS, EMBEDDINGS, MODELS)
_NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which requests a rule is for; what is not given admits all."""

    model: str = ""
    endpoint: str = ""
    stream: bool | None = None
    # Bytes that the request's body holds.
    marker: bytes = b""
    every: int = 1
    first: int = 1
    last: int | None = None
    probability: float = 1.0
    seed: int = 0

    def admits(self, asked: Asked) -> bool:
        """Whether a request is counted at all."""
        return (
            self.model in ("", asked.model)
            and self.endpoint in ("", asked.endpoint)
            and self.stream in (None, asked.stream)
            and self.marker in asked.raw
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A fault and when it comes; an empty fault is none, for requests that no later rule is to meet."""

    match: Match
    fault: str
    given: Mapping[str, Any]
    # How long the rule takes every request that it admits, once it took one.
    storm_s: float = 0.0
    # The most requests that it takes; None for any number.
    times: int | None = None

    @property
    def at_accept(self) -> bool:
        """Whether this is a fault of a new connection."""
        return self.fault in AT_ACCEPT


class Counted:
    """A rule with what it has seen so far."""

    __slots__ = ("_chance", "_seen", "_storm_until_s", "rule", "taken")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.taken = 0
        self._seen = 0
        self._storm_until_s = 0.0
        self._chance = random.Random(rule.match.seed)

    def takes(self, now_s: float) -> bool:
        """Whether the rule takes the next request that it admits."""
        self._seen += 1
        match, number = self.rule.match, self._seen
        drawn = match.probability >= 1 or self._chance.random() < match.probability
        if self.rule.times is not None and self.taken >= self.rule.times:
            return False
        in_turn = number >= match.first and (match.last is None or number <= match.last)
        taken = (drawn and in_turn and (number - match.first + 1) % match.every == 0) or (
            now_s < self._storm_until_s
        )
        if taken and self.rule.storm_s and now_s >= self._storm_until_s:
            self._storm_until_s = now_s + self.rule.storm_s
        return taken


class Script:
    """The rules in force."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules = [Counted(rule) for rule in rules]
        self._of_requests = [each for each in self._rules if not each.rule.at_accept]
        self._of_connections = [each for each in self._rules if each.rule.at_accept]

    def at_request(self, asked: Asked, now_s: float) -> Rule | None:
        """The rule that a request meets."""
        if not self._of_requests:
            return None
        return _first([each for each in self._of_requests if each.rule.match.admits(asked)], now_s)

    def at_accept(self, now_s: float) -> Rule | None:
        """The rule that a new connection meets."""
        return _first(self._of_connections, now_s) if self._of_connections else None

    def taken(self) -> list[dict[str, Any]]:
        """How many requests or connections each rule took."""
        return [{"fault": each.rule.fault or _NONE, "taken": each.taken} for each in self._rules]


def _first(counted: Sequence[Counted], now_s: float) -> Rule | None:
    taking = [each for each in counted if each.takes(now_s)]
    if not taking:
        return None
    taking[0].taken += 1
    return taking[0].rule if taking[0].rule.fault else None


def read_script(document: Section) -> tuple[Rule, ...]:
    """The rules of a script's document; faults of it are collected in its `faults`."""
    rules = tuple(_rule(section) for section in document.sections("rules"))
    document.close()
    return rules


def _rule(section: Section) -> Rule:
    fault = section.choice("fault", "", (_NONE, *FAULTS, *AT_ACCEPT))
    fault = "" if fault == _NONE else fault
    parameters = AT_ACCEPT.get(fault, FAULTS[fault].parameters if fault in FAULTS else {})
    rule = Rule(
        match=_match(section.section("match"), at_accept=fault in AT_ACCEPT),
        fault=fault,
        given={name: _parameter(section, name, default) for name, default in parameters.items()},
        storm_s=section.number("storm_s", 0.0, above=-1e-9),
        times=section.integer("times", None, low=1) if section.has("times") else None,
    )
    section.raw("times")
    section.close()
    return rule


def _match(section: Section, *, at_accept: bool) -> Match:
    """A connection has no model, endpoint, stream or marker: these are unknown keys of its rule."""
    of_request: dict[str, Any] = {}
    if not at_accept:
        of_request = {
            "model": section.optional_text("model") or "",
            "endpoint": section.choice("endpoint", "", _ENDPOINTS),
            "stream": section.flag("stream", default=False) if section.has("stream") else None,
            "marker": (section.optional_text("marker") or "").encode(),
        }
        section.raw("stream")
    match = Match(
        **of_request,
        every=section.integer("every", 1, low=1),
        first=section.integer("from", 1, low=1),
        last=section.integer("to", None, low=1) if section.has("to") else None,
        probability=section.number("probability", 1.0, above=-1e-9, below=1 + 1e-9),
        seed=section.integer("seed", 0, low=0),
    )
    section.raw("to")
    section.close()
    return match


def _parameter(section: Section, name: str, default: Any) -> Any:
    """A parameter of a fault, of the kind that its default is."""
    if isinstance(default, tuple):
        return section.choice(name, default[0], default)
    if isinstance(default, bool):
        return section.flag(name, default=default)
    if isinstance(default, int):
        return section.integer(name, default, low=0)
    if isinstance(default, float):
        return section.number(name, default, above=-1e-9) if section.has(name) else default
    return section.text(name, default) if section.has(name) else default
