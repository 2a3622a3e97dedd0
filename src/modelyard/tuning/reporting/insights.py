"""What a study teaches, computed from its trials: the gain, what matters, what failed, what stopping saved.

Everything is a description of the trials that were made. A search does not try configurations evenly, so
none of it is an experiment about a parameter.
"""

from __future__ import annotations

import json
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.result import comparable
from modelyard.tuning.study import distribution
from modelyard.tuning.trial import Trial, TrialState
from modelyard.tuning.view import StudyView, TrialView

#: Fewer complete trials than this say nothing about importance.
FEWEST_FOR_IMPORTANCE = 8
#: PED-ANOVA compares this share of the trials, the best, with all. Optuna's own 0.1 leaves so few of 40 that
#: chance decides: in simulations with eight parameters it found the one that mattered most in half of the
#: studies made by TPE, the better half in all.
_TOP_SHARE = 0.5
#: A half of a range, or an option, is compared where both sides have so many trials.
_FEWEST_EACH = 3
#: A part that wins less of the pairs than this is not called better, however many trials there are.
_CLEAR = 0.6
#: Numbers that are counted along an axis are shown by their ratios where they span so much.
_WIDE = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One axis of the space as commands see it: the values that trials had there."""

    name: str
    # By number of the trial; only where it counted.
    values: Mapping[int, Any]
    # Labels of what can be chosen; empty for numbers.
    options: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    # Values that were seen, where the axis counts a list of numbers.
    listed: tuple[float, ...] = ()

    def place(self, number: int) -> float:
        """Where a trial stands on the axis: its number, or its option's place; NaN where it did not count."""
        if number not in self.values:
            return math.nan
        value = self.values[number]
        return float(self.options.index(label(value)) if self.options else value)

    @property
    def middle(self) -> float:
        """Halfway on the axis' scale."""
        return math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """How much better the best trial is than the default configuration with the same budget."""

    best: TrialView
    default: TrialView
    # Above 0 where the best is better, whatever the direction.
    difference: float
    # The same as a part of the default's value; None where that is zero.
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The better half of a parameter's range, or its best option, and how it compares with the rest."""

    factor: Factor
    # The ends of the half, or the label of the option.
    low: float = 0.0
    high: float = 0.0
    option: str = ""
    upper: bool = False
    # Values of the trials within and elsewhere, negated where more is better; infinite where it was stopped.
    inside: tuple[float, ...]
    outside: tuple[float, ...]

    @property
    def wins(self) -> float:
        """In which share of the pairs the trial from within was the better one; equals count by half."""
        pairs = [(a, b) for a in self.inside for b in self.outside]
        return sum(1.0 if a < b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)

    @property
    def clear(self) -> bool:
        """Whether `wins` is more than chance does: two standard errors of Mann and Whitney's above a half."""
        n, m = len(self.inside), len(self.outside)
        error = math.sqrt((n + m + 1) / (12 * n * m))
        return self.wins >= max(_CLEAR, 0.5 + 2 * error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A kind of failure: which trials had it, and what one of them said."""

    name: str
    trials: tuple[int, ...]
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """What stopping spared: trials, and the steps and seconds that they would have taken to their end."""

    trials: int
    steps: int
    # At the pace of the trials that came to their end; estimated.
    seconds: float
    # Median of the steps that the stopped ones had made, and how many they could have made.
    reached: float
    full: int


def factors(view: StudyView) -> tuple[Factor, ...]:
    """The axes on which trials can differ, in the order of the space."""
    made = (_factor(dimension, view.trials) for dimension in view.dimensions)
    return tuple(each for each in made if len(each.options) > 1 or each.high > each.low)


def label(value: Any) -> str:
    """A value in words: text as it is, numbers to six digits, all else as JSON."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def counted(view: StudyView) -> list[Trial]:
    """The trials that may be compared: complete, feasible, of one budget."""
    return comparable([each.trial for each in view.trials])


def costs(view: StudyView) -> dict[int, float]:
    """How bad each configuration was, by the number of its trial: less is better, infinite where it lost.

    A trial that was stopped early, or was not promoted to the largest budget, has no value that could be
    compared, but was found wanting. Failed ones are left out: they say nothing of the configuration.
    """
    found = {t.number: view.objectives[0].sign * (t.value or 0.0) for t in counted(view)}
    continued = {each.trial.parent for each in view.trials}
    for trial in (each.trial for each in view.trials):
        lost = trial.state in (TrialState.PRUNED, TrialState.COMPLETE) and trial.feasible
        if lost and trial.number not in continued:
            found.setdefault(trial.number, math.inf)
    return found


def standing(trial: Trial) -> float | None:
    """A trial's value, or the last of its curve where it has none."""
    if trial.value is not None:
        return trial.value
    return trial.curve[max(trial.curve)] if trial.curve else None


def gain(view: StudyView) -> Gain | None:
    """None where there is no best, or the default configuration has no value with the best one's budget."""
    best, default = view.best, default_like_best(view)
    if best is None or default is None or best.trial.value is None or default.trial.value is None:
        return None
    difference = view.objectives[0].sign * (default.trial.value - best.trial.value)
    share = difference / abs(default.trial.value) if default.trial.value else None
    return Gain(best=best, default=default, difference=difference, share=share)


def default_like_best(view: StudyView) -> TrialView | None:
    """The default configuration's trial with the budget of the best, if it has one."""
    best, numbers = view.best, set[int]()
    for each in view.trials:
        if each.trial.source == "default" or each.trial.parent in numbers:
            numbers.add(each.trial.number)
            if best is not None and each.trial.value is not None and each.trial.budget == best.trial.budget:
                return each
    return None


def importances(view: StudyView) -> dict[str, float] | None:
    """Which axes told the better half of the trials from all: shares that add up to 1, the largest first.

    An estimate, made by Optuna: PED-ANOVA (Watanabe et al., IJCAI 2023), which looks at the order of the
    trials alone, so that stopped ones count as the worst. An axis without any effect gets a share too, the
    more the fewer trials there are. None with fewer than eight complete trials, or where they are all equal.
    """
    import optuna

    known, found = {each.name: each for each in factors(view)}, costs(view)
    trials = [each.trial for each in view.trials if each.trial.number in found]
    complete = [cost for cost in found.values() if math.isfinite(cost)]
    if len(complete) < FEWEST_FOR_IMPORTANCE or len(set(found.values())) < 2:
        return None
    axes = {d.name: distribution(d) for d in view.dimensions if d.name in known}
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), direction="minimize")
    worst = max(complete) + 1.0  # of those that lost; only the order of the trials counts
    for trial in trials:
        used = [name for name in axes if trial.number in known[name].values and name in trial.point]
        study.add_trial(
            optuna.trial.create_trial(
                params={name: trial.point[name] for name in used},
                distributions={name: axes[name] for name in used},
                value=min(found[trial.number], worst),
            )
        )
    varied = [name for name in axes if len({label(v) for v in _at(known[name], trials)}) > 1]
    if not varied:
        return None
    top = min(_TOP_SHARE, len(complete) / len(trials))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that conditional parameters have few trials
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied)
    if len(shares) > 1 and len(set(shares.values())) == 1:
        return None  # so Optuna says that none of them tells anything
    return dict(sorted(shares.items(), key=lambda pair: (-pair[1], pair[0])))


def better_part(view: StudyView, factor: Factor) -> Part | None:
    """The better half of an axis, or its best option; None where either side has fewer than three trials."""
    found = {number: cost for number, cost in costs(view).items() if number in factor.values}
    parts = [
        part
        for part in (_options(factor, found) if factor.options else _halves(factor, found))
        if min(len(part.inside), len(part.outside)) >= _FEWEST_EACH
    ]
    return max(parts, key=lambda part: part.wins, default=None)


def causes(view: StudyView) -> tuple[Cause, ...]:
    """Kinds of failure, the most frequent first."""
    kinds: dict[str, list[Trial]] = {}
    for each in view.trials:
        if each.trial.state is TrialState.FAILED:
            kinds.setdefault(each.trial.cause or "unknown", []).append(each.trial)
    found = [
        Cause(name=name, trials=tuple(t.number for t in trials), example=trials[-1].why)
        for name, trials in kinds.items()
    ]
    return tuple(sorted(found, key=lambda cause: (-len(cause.trials), cause.name)))


def savings(view: StudyView) -> Savings | None:
    """What stopping saved; None where nothing was stopped, or no trial tells how long a whole one is."""
    stopped = [each for each in view.trials if each.trial.state is TrialState.PRUNED and each.trial.curve]
    whole = [t.trial for t in view.trials if t.trial.state is TrialState.COMPLETE and t.trial.curve]
    first = min((min(each.trial.curve) for each in view.trials if each.trial.curve), default=1)
    from_zero = 1 if first == 0 else 0  # steps counted from 0: the one at 9 is the tenth
    longest = max((max(trial.curve) + from_zero for trial in whole), default=0)
    paces = [
        pace
        for each in view.trials
        if each.trial.state is TrialState.COMPLETE and each.trial.curve and (pace := _pace_s(each, from_zero))
    ]
    made, saved, full = [], 0, 0
    for each in stopped:
        reached = max(each.trial.curve) + from_zero
        end = max(each.trial.budget or longest, reached)
        if reached <= 0 or end <= 0:
            continue
        full = max(full, end)
        made.append(reached)
        saved += end - reached
    if not made or not saved or not paces:
        return None
    seconds = saved * statistics.median(paces)
    return Savings(trials=len(made), steps=saved, seconds=seconds, reached=statistics.median(made), full=full)


def _pace_s(each: TrialView, from_zero: int) -> float:
    """Seconds a step of a whole trial takes, its start among them."""
    steps = max(each.trial.curve) + from_zero
    return (seconds_of(each) or 0.0) / steps if steps > 0 else 0.0


def seconds_of(each: TrialView) -> float | None:
    """From a trial's proposal to its end; None where it has not ended."""
    if not each.started_at or not each.ended_at:
        return None
    begun, ended = (datetime.fromisoformat(at) for at in (each.started_at, each.ended_at))
    return max(0.0, (ended - begun).total_seconds())


def wall_s(view: StudyView) -> float:
    """From the first trial's proposal to the last one's end; breaks between two invocations are in it."""
    begun = [datetime.fromisoformat(each.started_at) for each in view.trials if each.started_at]
    ended = [datetime.fromisoformat(each.ended_at) for each in view.trials if each.ended_at]
    return max(0.0, (max(ended) - min(begun)).total_seconds()) if begun and ended else 0.0


# -- axes ----------------------------------------------------------------------------------------------


def _factor(dimension: Dimension, trials: Sequence[TrialView]) -> Factor:
    values = {each.trial.number: found[0] for each in trials if (found := _value(dimension, each))}
    numbers = [v for v in values.values() if isinstance(v, int | float) and not isinstance(v, bool)]
    same = all(values[t.trial.number] == t.trial.point.get(dimension.name) for t in trials
               if t.trial.number in values)  # fmt: skip
    shared = dimension.kind == "float" and (dimension.low, dimension.high) == (0.0, 1.0)
    weighted = shared and not same and "[" not in dimension.name
    if dimension.kind == "choice" or len(numbers) < len(values) or weighted:
        known = dict.fromkeys(label(json.loads(text)) for text in dimension.choices)
        known |= dict.fromkeys(sorted({label(value) for value in values.values()}))
        return Factor(name=dimension.name, values=values, options=tuple(known))
    if same or "[" in dimension.name:
        low, high = dimension.low, dimension.high
        low, high = min([low, *numbers]), max([high, *numbers])
        return Factor(
            name=dimension.name,
            values=values,
            low=low,
            high=high,
            log=dimension.log,
            whole=dimension.kind == "int",
        )
    listed = tuple(sorted(set(numbers)))  # numbers that the axis counts: powers, or a list
    return Factor(
        name=dimension.name, values=values, low=listed[0], high=listed[-1], listed=listed,
        log=0 < _WIDE * listed[0] <= listed[-1], whole=all(isinstance(v, int) for v in listed),
    )  # fmt: skip


def _value(dimension: Dimension, each: TrialView) -> tuple[Any] | None:
    """What a trial was told of an axis; None where it did not count."""
    name, told = dimension.name, each.assignments
    coordinate = each.trial.point.get(name)
    own = json.loads(coordinate) if dimension.kind == "choice" and isinstance(coordinate, str) else coordinate
    if not told:
        return None if coordinate is None else (own,)
    if name in told:
        return (told[name],)
    owner, _, place = name.removesuffix("]").rpartition("[")
    if owner not in told:
        return None
    items = told[owner]
    if dimension.kind != "choice" and isinstance(items, list) and place.isdigit() and int(place) < len(items):
        return (items[int(place)],)
    return (own,)


def _at(factor: Factor, trials: Sequence[Trial]) -> list[Any]:
    return [factor.values[trial.number] for trial in trials if trial.number in factor.values]


# -- parts ---------------------------------------------------------------------------------------------


def _halves(factor: Factor, found: Mapping[int, float]) -> list[Part]:
    """The lower and the upper half of a range."""
    below = tuple(cost for number, cost in found.items() if factor.place(number) <= factor.middle)
    above = tuple(cost for number, cost in found.items() if factor.place(number) > factor.middle)
    return [
        Part(factor=factor, low=factor.low, high=factor.middle, inside=below, outside=above),
        Part(factor=factor, low=factor.middle, high=factor.high, upper=True, inside=above, outside=below),
    ]


def _options(factor: Factor, found: Mapping[int, float]) -> list[Part]:
    """Each option against all others."""
    return [
        Part(
            factor=factor, option=option,
            inside=tuple(cost for number, cost in found.items() if factor.place(number) == place),
            outside=tuple(cost for number, cost in found.items() if factor.place(number) != place),
        )
        for place, option in enumerate(factor.options)
    ]  # fmt: skip
