"""Decoding with heads held against plain decoding: the same prompts, the same loop, in turns.

Speed-ups are ratios of sums over prompts, in seconds for each token; their intervals are of the bootstrap
over prompts (Efron 1979), by which also what differs between prompts counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.heads.base import Base
from modelyard.heads.decoding.decoder import Decoded, Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.measuring.intervals import Bootstrap, Estimate
from modelyard.heads.measuring.regret import Regret, regrets, summed

PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to decode that is measured."""

    name: str
    decode: Callable[[Sequence[int]], Decoded]


@dataclass(frozen=True, slots=True, kw_only=True)
class WayResult:
    """What one way did over all prompts."""

    name: str
    tokens: int
    tokens_per_pass: Estimate
    wall_ms_per_token: float
    cpu_ms_per_token: float
    # Times faster than plain decoding.
    wall_speedup: Estimate
    cpu_speedup: Estimate
    # Prompts whose tokens are those of plain decoding.
    identical: int
    prompts: int
    regret: Regret | None

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON value."""
        spans = ("tokens_per_pass", "wall_speedup", "cpu_speedup")
        return {
            "name": self.name, "tokens": self.tokens, "prompts": self.prompts, "identical": self.identical,
            "wall_ms_per_token": round(self.wall_ms_per_token, 3),
            "cpu_ms_per_token": round(self.cpu_ms_per_token, 3),
            **{name: [round(each, 4) for each in _three(getattr(self, name))] for name in spans},
            "regret": None if self.regret is None else self.regret.as_json(),
        }  # fmt: skip


def decoder_way(name: str, decoder: Decoder, settings: DecodeSettings) -> Way:
    """Decode by our own loop."""
    return Way(name=name, decode=lambda ids: decoder.generate(ids, settings))


def compare(
    ways: Sequence[Way], prompts: Sequence[Sequence[int]], *, reference: Base | None = None, seed: int = 0,
    observe: Callable[[int, int], None] = lambda *_: None,
) -> list[WayResult]:  # fmt: skip
    """Decode every prompt by every way; see `decode_in_turns` and `results_of`."""
    found = decode_in_turns(ways, prompts, observe=observe)
    regret = {} if reference is None else regrets_of(found, prompts, reference)
    return results_of(found, regret, seed=seed)


def decode_in_turns(
    ways: Sequence[Way], prompts: Sequence[Sequence[int]], *,
    observe: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, list[Decoded]]:  # fmt: skip
    """Decode every prompt by every way, beginning with another one each time.

    Args:
        ways: The first is plain decoding. Each decodes the first prompt once before, which does not count.
        prompts: Tokens.
        observe: Is told prompts done, and of how many.

    Returns:
        By the names of the ways, in their order, what was decoded for each prompt.
    """
    for way in ways:
        way.decode(prompts[0])
    found: dict[str, list[Decoded]] = {way.name: [] for way in ways}
    for number, ids in enumerate(prompts):
        turn = number % len(ways)
        for way in (*ways[turn:], *ways[:turn]):
            found[way.name].append(way.decode(ids))
        observe(number + 1, len(prompts))
    return found


def regrets_of(
    found: Mapping[str, Sequence[Decoded]], prompts: Sequence[Sequence[int]], reference: Base
) -> dict[str, list[NDArray[np.float64]]]:
    """The regrets of what each way decoded, by the base in float32."""
    return {
        name: [regrets(reference, ids, each.tokens) for ids, each in zip(prompts, decoded, strict=True)]
        for name, decoded in found.items()
    }


def results_of(
    found: Mapping[str, Sequence[Decoded]], regret: Mapping[str, Sequence[NDArray[np.float64]]], *,
    seed: int = 0,
) -> list[WayResult]:  # fmt: skip
    """What each way did, held against the first one.

    Args:
        found: For each way what was decoded for each prompt.
        regret: For each way the regrets; empty where they were not measured.
        seed: Of the bootstrap.
    """
    plain = next(iter(found.values()))
    bootstrap = Bootstrap(len(plain), seed)
    return [
        _result(name, decoded, plain, bootstrap, summed(regret[name]) if name in regret else None)
        for name, decoded in found.items()
    ]


def _result(
    name: str, mine: Sequence[Decoded], theirs: Sequence[Decoded], bootstrap: Bootstrap, regret: Regret | None
) -> WayResult:
    tokens, passes = _column(mine, lambda each: len(each.tokens)), _column(mine, lambda each: each.passes)
    speedups = {
        clock: bootstrap.quotient(
            (_column(theirs, seconds), _column(theirs, lambda each: len(each.tokens))),
            (_column(mine, seconds), tokens),
        )
        for clock, seconds in (("wall", lambda each: each.wall_s), ("cpu", lambda each: each.cpu_s))
    }
    return WayResult(
        name=name, tokens=int(tokens.sum()), prompts=len(mine), regret=regret,
        tokens_per_pass=bootstrap.ratio(tokens - 1, passes - 1),
        wall_ms_per_token=1e3 * sum(each.wall_s for each in mine) / float(tokens.sum()),
        cpu_ms_per_token=1e3 * sum(each.cpu_s for each in mine) / float(tokens.sum()),
        wall_speedup=speedups["wall"], cpu_speedup=speedups["cpu"],
        identical=sum(a.tokens == b.tokens for a, b in zip(mine, theirs, strict=True)),
    )  # fmt: skip


def _column(decoded: Sequence[Decoded], value: Callable[[Decoded], float]) -> NDArray[np.float64]:
    return np.array([value(each) for each in decoded], dtype=np.float64)


def _three(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high
