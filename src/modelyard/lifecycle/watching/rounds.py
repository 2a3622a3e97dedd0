"""Rounds of `up --watch`: the yard is run to its end, then looked at again and again.

A round that finds causes asks for them in the journal before anything is touched, and is then carried
out in two parts: the members first, the pool after them. What ends badly is put back as it was when
the round was asked for: a member alone, or, where the policy itself cannot be made, everything. A round
that was killed anywhere is carried out by the next that looks, and no cause is acted on twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

from modelyard.core.clock import stamp
from modelyard.core.errors import RunBusy
from modelyard.core.failpoints import failpoint
from modelyard.core.locks import held
from modelyard.lifecycle.up import begin, notices, up
from modelyard.lifecycle.watching.carrying import Carrying, Round
from modelyard.lifecycle.watching.causes import Look
from modelyard.lifecycle.watching.standing import Scene, Standing
from modelyard.runs.directory import drive, open_run
from modelyard.runs.execution import Outcome, judge

#: Waits so many seconds; true as soon as a stop is asked for, as by a file that then is there.
Pause = Callable[[float, Path], bool]
_LOOK_S = 0.2


def watch(scene: Scene, *, every_s: float, rounds: int | None, pause: Pause) -> Iterator[Round]:
    """Take rounds until so many were taken, or a stop is asked for.

    Args:
        scene: What is watched.
        every_s: How long to wait between two.
        rounds: How many; None: without end.
        pause: How that is waited.

    Raises:
        DocumentError, RunError: As `up`; also where another process watches the same run.
    """
    directory = begin(scene.yard, scene.prepared)
    try:
        with held(directory.watch_lock):
            directory.cancel_path.unlink(missing_ok=True)
            taken = 0
            while True:
                done = take_round(scene)
                yield done
                taken += 1
                if done.outcome is Outcome.CANCELLED or taken == rounds:
                    return
                if pause(every_s, directory.cancel_path):
                    yield Round(outcome=Outcome.CANCELLED, at=stamp(scene.clock()))
                    return
    except BlockingIOError as error:
        raise RunBusy(
            f"{scene.prepared.run}: another process watches this run; end that one first"
        ) from error


def pause_unless(asked: Collection[str]) -> Pause:
    """A pause that ends as soon as something is in `asked`, or its file is there."""

    def pause(seconds: float, cancel_path: Path) -> bool:
        deadline = time.monotonic() + seconds
        while not (stopped := bool(asked) or cancel_path.exists()):
            if (left := deadline - time.monotonic()) <= 0.0:
                break
            time.sleep(min(_LOOK_S, left))
        return stopped

    return pause


def foreseen(scene: Scene) -> Look | None:
    """What the next round would find; None where it would first run the yard to its end."""
    path = scene.prepared.declaration.scope.run_dir
    if not (path / "run.json").exists():
        return None
    standing = Standing(scene, open_run(path))
    if standing.asks.open is not None:
        return Look(causes=standing.asks.open.causes)
    return standing.look() if standing.finished else None


def take_round(scene: Scene) -> Round:
    """Carry out what is left of the last round, or look, and carry out what there is to do."""
    directory = begin(scene.yard, scene.prepared)
    standing = Standing(scene, directory)
    ask, problem = standing.asks.open, ""
    if ask is None and not standing.finished:
        result = up(scene.yard, scene.prepared, scene.options, observers=scene.observers)
        at = stamp(scene.clock())
        return Round(outcome=result.outcome, at=at, result=result, untold=result.untold)
    if ask is None:
        found = standing.look()
        problem = found.problem
        if not found.causes:
            outcome = judge(standing.progress, stopped=False, continued=True)
            return Round(outcome=outcome, at=stamp(standing.now), problem=problem)
        with drive(directory):
            ask = standing.ask(found.causes)
        failpoint("watch.after_asked")
    with notices(scene.yard, scene.prepared, scene.options) as notifier:
        done = Carrying(scene, directory, ask, notifier).out()
    return replace(done, problem=problem, untold=tuple(notifier.untold))
