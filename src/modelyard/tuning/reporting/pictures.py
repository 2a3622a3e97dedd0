"""Pictures of a study, from its view alone, drawn by `reports`.

A trial that was stopped or has failed is marked as such and never drawn as a result. Where a few values lie
far from all others they are drawn at the edge, and the axis says so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from modelyard.core.errors import TuneError
from modelyard.core.files import write_whole
from modelyard.reports.charts import INK, MUTED, PALETTE, Floats, to_svg
from modelyard.reports.heatmap import to_png
from modelyard.reports.panels import (
    Note,
    Panel,
    Scale,
    Strand,
    Strokes,
    panels_chart,
    shares_chart,
    shown,
    strands_chart,
)
from modelyard.tuning.reporting.insights import (
    FEWEST_FOR_IMPORTANCE,
    Factor,
    counted,
    factors,
    importances,
    standing,
)
from modelyard.tuning.reporting.value_scales import ValueScale, objective_scale, values_of, values_of_curves
from modelyard.tuning.trial import Trial, TrialState
from modelyard.tuning.view import StudyView

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["history", "curves", "parallel", "importance", "slices", "pareto"]
KINDS: tuple[Kind, ...] = ("history", "curves", "parallel", "importance", "slices", "pareto")

_SUFFIXES = (".png", ".svg")
_GOOD, _BAD, _BEST, _FRONT = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[2]
_MOST_AXES, _MOST_SLICES, _MOST_CURVES, _MOST_STRANDS, _MOST_OBJECTIVES = 9, 24, 200, 200, 4
#: More points than this are drawn smaller.
_MANY = 120
#: The best of the trials that parallel coordinates set off.
_TOP = 0.2
#: Letters of an end of a name, such as `lr` or `name`, that need the word before it.
_SAYS_LITTLE = 4


def check_picture(path: Path, *, suffixes: Sequence[str] = _SUFFIXES) -> None:
    """Find out before reading a study whether a picture or a page can be made.

    Raises:
        TuneError: The path's end is no known format, its folder is not there, or a library is not.
    """
    if path.suffix not in suffixes:
        raise TuneError(f"{path}: does not end in {' or '.join(suffixes)}; give such a path")
    if not path.parent.is_dir():
        raise TuneError(f"{path.parent}: is not a folder; make it, or give another path")
    for library in ("matplotlib", "jinja2"):
        if importlib.util.find_spec(library) is None:
            raise TuneError(
                f"{path}: cannot be made without {library}; install it with pip install 'modelyard[report]'"
            )


def write_picture(figure: Figure, path: Path) -> None:
    """As an SVG or a PNG file, by the end of the path."""
    write_whole(path, to_png(figure) if path.suffix == ".png" else to_svg(figure))


def why_not(view: StudyView, kind: Kind) -> str:
    """Why a picture cannot be drawn of this study; empty where it can."""
    complete = counted(view)
    if kind == "curves":
        told = any(len(each.trial.curve) > 1 for each in view.trials)
        return "" if told else "no trial has reported values at more than one step"
    if kind == "history" and any(each.trial.state.final for each in view.trials):
        return ""
    if not complete:
        return "no trial has ended with a value"
    if kind in ("parallel", "slices") and len(complete) < 2:
        return "one complete trial has nothing beside it"
    if kind in ("parallel", "slices", "importance") and not factors(view):
        return "its space has nothing that can vary"
    if kind == "importance" and importances(view) is None:
        if len(complete) < FEWEST_FOR_IMPORTANCE:
            return f"it needs {FEWEST_FOR_IMPORTANCE} complete trials, and has {len(complete)}"
        return "its complete trials are all alike"
    if kind == "pareto" and len(view.objectives) < 2:
        return "it has one objective; a Pareto front needs two or more"
    return ""


def picture(view: StudyView, kind: Kind) -> Figure:
    """A picture of a study.

    Raises:
        TuneError: There is nothing to draw.
    """
    why = why_not(view, kind)
    if why:
        raise TuneError(f"{view.name}: {kind} cannot be drawn: {why}")
    draw: dict[Kind, Callable[[StudyView], Figure]] = {
        "history": _history, "curves": _curves, "parallel": _parallel, "importance": _importance,
        "slices": _slices, "pareto": _pareto,
    }  # fmt: skip
    return draw[kind](view)


# -- in the order of the trials ------------------------------------------------------------------------


def _history(view: StudyView) -> Figure:
    """Values by number of the trial, with the best so far."""
    compared, values = counted(view), values_of(view)
    numbers = {trial.number for trial in compared}
    rest = [each.trial for each in view.trials if each.trial.number not in numbers]
    smaller = [t for t in rest if t.state is TrialState.COMPLETE]
    stopped = [t for t in rest if t.state is TrialState.PRUNED and t.curve]
    failed = [t.number for t in rest if t.state is TrialState.FAILED]
    floor = values.foot()
    strokes = [
        _best_so_far(compared, values, last=len(view.trials) - 1),
        _dots(compared, values, name="complete", colour=_GOOD),
        _dots(smaller, values, name="other budget, or infeasible", colour=PALETTE[5]),
        _dots(stopped, values, name="stopped, its last value", colour=MUTED, marker="x"),
        Strokes(
            name="failed", x=np.array(failed, np.float64), y=np.full(len(failed), floor), colour=_BAD,
            marker="x", size_pt=5,
        ),
    ]  # fmt: skip
    across = Scale(label="trial", low=0.0, high=float(max(1, len(view.trials) - 1)), whole=True)
    panel = Panel(
        strokes=tuple(each for each in strokes if len(each.x)), across=across,
        up=replace(values.scale, low=floor), notes=_history_notes(view, values),
    )  # fmt: skip
    return panels_chart([panel], height_pt=210)


def _best_so_far(compared: Sequence[Trial], values: ValueScale, *, last: int) -> Strokes:
    """A stair that falls, or rises, where a trial was better than all before it."""
    x: list[float] = []
    y: list[float] = []
    for trial in compared:
        value = values.at(trial.value or 0.0)
        if y and values.sign * value >= values.sign * y[-1]:
            continue
        if y:
            x, y = [*x, trial.number], [*y, y[-1]]
        x, y = [*x, trial.number], [*y, value]
    if y:
        x, y = [*x, last], [*y, y[-1]]
    return Strokes(name="best so far", x=np.array(x, np.float64), y=np.array(y), colour=_BEST, marker="",
                   line_pt=1.8)  # fmt: skip


def _history_notes(view: StudyView, values: ValueScale) -> tuple[Note, ...]:
    notes = []
    best, default = view.best, view.default
    below = values.sign > 0
    if best is not None and best.trial.value is not None:
        text = f"best: {shown(best.trial.value, digits=4)}"
        notes.append(Note(text=text, x=best.trial.number, y=values.at(best.trial.value), below=below))
    if default is not None and default.trial.value is not None and default != best:
        notes.append(
            Note(text="default", x=default.trial.number, y=values.at(default.trial.value), below=not below)
        )
    return tuple(notes)


def _curves(view: StudyView) -> Figure:
    """Every trial's values by step."""
    drawn = [each.trial for each in view.trials if each.trial.curve][-_MOST_CURVES:]
    best, default = view.best, view.default
    marked = {t.trial.number for t in (best, default) if t is not None}
    drawn += [t.trial for t in (default, best) if t is not None and t.trial.curve]  # on top
    values = values_of_curves(view, drawn)
    strokes: list[Strokes] = []
    for place, trial in enumerate(drawn):
        if trial.number in marked and trial.number in {t.number for t in drawn[place + 1 :]}:
            continue
        is_best = best is not None and trial.number == best.trial.number
        is_default = default is not None and trial.number == default.trial.number
        strokes += _curve(trial, values, best=is_best, default=is_default)
    log = max(max(trial.curve) for trial in drawn) >= 50 * max(1, min(min(trial.curve) for trial in drawn))
    steps = [step for trial in drawn for step in trial.curve]
    across = Scale(label="step", low=min(steps), high=max(steps), log=log and min(steps) > 0)
    return panels_chart([Panel(strokes=tuple(strokes), across=across, up=values.scale)], height_pt=240)


def _curve(trial: Trial, values: ValueScale, *, best: bool, default: bool) -> list[Strokes]:
    """A line, and a cross where it was stopped or failed."""
    x = np.array(list(trial.curve), np.float64)
    y = np.array([values.at(value) for value in trial.curve.values()])
    name, colour, width, alpha = {
        TrialState.COMPLETE: ("complete", _GOOD, 0.9, 0.55),
        TrialState.PRUNED: ("stopped", MUTED, 0.8, 0.5),
        TrialState.FAILED: ("failed", _BAD, 0.9, 0.8),
        TrialState.RUNNING: ("running", PALETTE[4], 1.0, 0.9),
    }[trial.state]
    if best:
        name, colour, width, alpha = "best", _BEST, 2.2, 1.0
    elif default:
        name, colour, width, alpha = "default", INK, 1.4, 1.0
    ended_early = trial.state in (TrialState.PRUNED, TrialState.FAILED)
    single = "o" if len(x) == 1 and not ended_early else ""
    line = Strokes(
        name=name, x=x, y=y, colour=colour, line_pt=width, marker=single, size_pt=3, alpha=alpha,
        dashed=default and not best,
    )  # fmt: skip
    if not ended_early:
        return [line]
    end = Strokes(x=x[-1:], y=y[-1:], colour=colour, marker="x", size_pt=4, alpha=max(alpha, 0.8))
    return [line, end]


# -- by parameter --------------------------------------------------------------------------------------


def _importance(view: StudyView) -> Figure:
    """What told good trials from the others."""
    found = list((importances(view) or {}).items())[:_MOST_SLICES]
    return shares_chart(
        found,
        x_label="estimated share in telling the better half of the trials from all "
        f"(PED-ANOVA, {len(counted(view))} complete trials)",
    )


def leading(view: StudyView, most: int) -> list[Factor]:
    """The axes that matter most by the estimate, in its order; without one the first of the space."""
    known, ranked = factors(view), importances(view) or {}
    order = {name: place for place, name in enumerate(ranked)}
    return sorted(known, key=lambda factor: order.get(factor.name, len(order)))[:most]


def _slices(view: StudyView) -> Figure:
    """Values over each parameter by itself."""
    compared, values, best = counted(view), values_of(view, stopped=False), view.best
    stopped = [each.trial for each in view.trials if each.trial.state is TrialState.PRUNED]
    panels: list[Panel] = []
    for factor in leading(view, _MOST_SLICES):
        here = [trial for trial in compared if trial.number in factor.values]
        half = len(here) // 2
        strokes = [
            _over(factor, here[:half], values, "first half of the trials", PALETTE[5]),
            _over(factor, here[half:], values, "second half", _GOOD),
            _over(factor, [t for t in stopped if t.number in factor.values], values, "stopped", MUTED, "x"),
        ]
        if best is not None and best.trial.number in factor.values:
            strokes.append(_over(factor, [best.trial], values, "best", _BAD))
        kept = tuple(each for each in strokes if len(each.x))
        up = values.scale if not panels else replace(values.scale, label="")
        panels.append(Panel(strokes=kept, across=_scale(factor), up=up))
    return panels_chart(panels, columns=4, height_pt=120, own_y=False)


def _over(
    factor: Factor, trials: Sequence[Trial], values: ValueScale, name: str, colour: str, marker: str = "o"
) -> Strokes:
    """Points of trials over a parameter; those of one option stand side by side, stopped ones at the end."""
    places = np.array([factor.place(t.number) for t in trials], np.float64)
    if factor.options:
        places = places + np.array([_aside(t.number) for t in trials])
    heights = np.array([values.bad_end() if t.value is None else values.at(t.value) for t in trials])
    size_pt = 4.0 if len(places) <= _MANY else 2.6
    return Strokes(name=name, x=places, y=heights, colour=colour, marker=marker, size_pt=size_pt, alpha=0.85)


def _aside(number: int) -> float:
    """A step to the side that is a trial's own, within a quarter of a place."""
    return ((number * 0.618034) % 1.0 - 0.5) * 0.5


def _scale(factor: Factor) -> Scale:
    return Scale(
        label=factor.name, low=factor.low, high=factor.high, log=factor.log, whole=factor.whole,
        ticks=factor.listed, names=factor.options,
    )  # fmt: skip


def _parallel(view: StudyView) -> Figure:
    """Every complete trial as a line across its parameters to its value."""
    axes, compared, values = leading(view, _MOST_AXES), counted(view), values_of(view, stopped=False)
    ranked = sorted(compared, key=lambda t: (values.sign * (t.value or 0.0), t.number))
    top = {trial.number for trial in ranked[: max(1, round(_TOP * len(ranked)))]}
    every = -(-len(ranked) // _MOST_STRANDS)
    told = f", 1 of {every} drawn" if every > 1 else ""
    strands = []
    for trial in reversed(ranked[::every]):
        places = _places(axes, values, trial)
        if trial.number in top:
            look = Strand(places=places, name=f"best fifth{told}", colour=_GOOD, width_pt=1.2, alpha=0.7)
        else:
            look = Strand(places=places, name=f"other complete trials{told}", width_pt=0.8, alpha=0.3)
        strands.append(look)
    best, default = view.best, view.default
    if default is not None and default.trial in compared:
        places = _places(axes, values, default.trial)
        strands.append(Strand(places=places, name="default", colour=INK, width_pt=1.6, dashed=True))
    if best is not None:
        places = _places(axes, values, best.trial)
        strands.append(Strand(places=places, name="best", colour=_BAD, width_pt=2.2))
    names = _short_names([factor.name for factor in axes])
    scales = [replace(_scale(f), label=name) for f, name in zip(axes, names, strict=True)]
    return strands_chart([*scales, replace(values.scale, label=view.objectives[0].metric)], strands)


def _places(axes: Sequence[Factor], values: ValueScale, trial: Trial) -> Floats:
    """Where a trial stands on each axis, and its value."""
    aside = [_aside(trial.number) if factor.options else 0.0 for factor in axes]
    places = [factor.place(trial.number) + step for factor, step in zip(axes, aside, strict=True)]
    return np.array([*places, values.at(trial.value or 0.0)], np.float64)


def _short_names(names: Sequence[str]) -> list[str]:
    """The ends of dotted names that tell them apart and say something."""
    short = []
    for name in names:
        parts = name.split(".")
        tails = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        telling = (t for t in tails if len(t) > _SAYS_LITTLE and sum(_ends_so(n, t) for n in names) == 1)
        short.append(next(telling, name))
    return short


def _ends_so(name: str, tail: str) -> bool:
    return name == tail or name.endswith(f".{tail}")


# -- several objectives --------------------------------------------------------------------------------


def _pareto(view: StudyView) -> Figure:
    """The objectives against each other, two by two."""
    compared, front = counted(view), {each.trial.number for each in view.front}
    pairs = list(combinations(range(min(len(view.objectives), _MOST_OBJECTIVES)), 2))
    default = view.default
    panels = []
    for i, j in pairs:
        ahead = sorted((t.values or () for t in compared if t.number in front), key=lambda v: v[i])
        behind = [t.values or () for t in compared if t.number not in front]
        line = 1.2 if len(view.objectives) == 2 else 0.0
        strokes = [
            Strokes(name="complete", x=_column(behind, i), y=_column(behind, j), colour=MUTED, alpha=0.6),
            Strokes(name="Pareto front", x=_column(ahead, i), y=_column(ahead, j), colour=_FRONT,
                    line_pt=line, size_pt=5.5),
        ]  # fmt: skip
        if default is not None and default.trial.values is not None:
            own = [default.trial.values]
            strokes.append(
                Strokes(name="default", x=_column(own, i), y=_column(own, j), colour=_BAD, marker="D",
                        size_pt=5.5)
            )  # fmt: skip
        across, up = (objective_scale(view, k, [t.values[k] for t in compared if t.values]) for k in (i, j))
        kept = tuple(each for each in strokes if len(each.x))
        panels.append(Panel(strokes=kept, across=across, up=up, notes=_front_notes(view, i, j)))
    wide = len(panels) == 1
    return panels_chart(panels, columns=1 if wide else 2, height_pt=300 if wide else 190)


def _front_notes(view: StudyView, i: int, j: int) -> tuple[Note, ...]:
    """The numbers of the trials at the ends of a front."""
    if len(view.objectives) > 2 or not view.front:
        return ()
    ordered = sorted(view.front, key=lambda each: (each.trial.values or ())[i])
    ends = {each.trial.number: each.trial.values or () for each in (ordered[0], ordered[-1])}
    return tuple(Note(text=f"trial {number}", x=v[i], y=v[j]) for number, v in ends.items())


def _column(rows: Sequence[Sequence[float]], place: int) -> Floats:
    return np.array([row[place] for row in rows], np.float64)


def _dots(
    trials: Sequence[Trial], values: ValueScale, *, name: str, colour: str, marker: str = "o"
) -> Strokes:
    heights = [values.at(value) for t in trials if (value := standing(t)) is not None]
    return Strokes(
        name=name, x=np.array([t.number for t in trials], np.float64), y=np.array(heights), colour=colour,
        marker=marker, size_pt=4.5 if len(heights) <= _MANY else 3.0,
    )  # fmt: skip
