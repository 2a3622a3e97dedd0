"""What people look at: where a governed run stands, who drives it, what is next."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelyard.core.errors import RunNotFound
from modelyard.core.files import read_json
from modelyard.lifecycle.governed.request import RunPlaces
from modelyard.runs.liveness import Life, Liveness, liveness
from modelyard.runs.states import KIND, Move, standing
from modelyard.runs.yard import Yard

#: States in which somebody should be driving the run.
_UNDER_WAY = frozenset(
    {"requested", "routed", "planned", "submit_intent", "submitted", "running", "paired_eval"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernedView:
    """One run at one moment."""

    run: str
    state: str
    iteration: int
    life: Life
    why: str
    holder: str
    next_action: str
    progress: Mapping[str, Any]
    moves: tuple[Move, ...]

    def record(self) -> dict[str, Any]:
        """As a JSON value."""
        return {
            **{
                name: getattr(self, name)
                for name in ("run", "state", "iteration", "why", "holder", "next_action")
            },
            "life": self.life.value,
            "progress": dict(self.progress),
            "moves": [asdict(each) for each in self.moves],
        }


def governed_dir(yard: Yard, run: str) -> Path:
    """Where a governed run's files are that names no folder of its own."""
    return yard.root / "governed" / run


def governed_runs(yard: Yard) -> list[str]:
    """The governed runs of a yard, in the order in which they were requested."""
    return list(dict.fromkeys(entry.run for entry in yard.journal.read() if entry.kind == KIND))


def next_run_id(yard: Yard, candidate: str) -> str:
    """A name that no run of the yard has: the candidate's, and a number."""
    known = set(governed_runs(yard))
    return next(name for number in itertools.count(1) if (name := f"{candidate}-{number}") not in known)


def view_governed(
    yard: Yard, run: str, run_dir: Path, *, earlier: Mapping[str, Any] | None = None
) -> GovernedView:
    """Look at a run.

    Args:
        yard: Whose journal has it.
        run: Its id.
        run_dir: Its files.
        earlier: Its lease as it was read a lease's time ago; see `runs.liveness`.

    Raises:
        RunNotFound: The journal knows no such run.
    """
    now = standing(yard.journal, run)
    if not now.state:
        known = ", ".join(governed_runs(yard)) or "none"
        raise RunNotFound(f"{run}: is no governed run of {yard.root} (known: {known})")
    seen = _judged(liveness(run_dir, earlier=earlier), now.state)
    places = RunPlaces(run_dir=run_dir)
    progress = _progress(places.progress)
    lost = seen.life in (Life.LOST, Life.STALLED)
    action = "start it again with the same command" if lost else now.next_action
    return GovernedView(
        run=run, state=now.state, iteration=now.iteration, life=seen.life, why=seen.why, holder=seen.holder,
        next_action=action, progress=progress, moves=now.moves,
    )  # fmt: skip


def _progress(path: Path) -> dict[str, Any]:
    """The last line of progress; nothing where there is none, or a crash has left half of it."""
    try:
        record = read_json(path)
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _judged(seen: Liveness, state: str) -> Liveness:
    """Nobody at a run that is under way is lost: its driver went in good order, or was never written down."""
    if seen.life is Life.IDLE and state in _UNDER_WAY:
        return Liveness(
            life=Life.LOST, holder="", host=seen.host, silent_s=None, why="nobody drives it any more"
        )
    return seen
