"""One HTML page of a study: what was learnt in plain sentences, pictures, and all trials by rank."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from modelyard.reports.charts import to_svg
from modelyard.reports.page import Column, Fact, Figure, Page, Section, Table, Value, render
from modelyard.reports.panels import percent, shown
from modelyard.tuning.reporting.insights import (
    FEWEST_FOR_IMPORTANCE,
    Factor,
    Part,
    better_part,
    causes,
    counted,
    default_like_best,
    factors,
    gain,
    importances,
    label,
    savings,
    seconds_of,
    standing,
    wall_s,
)
from modelyard.tuning.reporting.pictures import Kind, leading, picture, why_not
from modelyard.tuning.trial import TrialState
from modelyard.tuning.view import StudyView, TrialView

_MOST_COLUMNS, _MOST_ROWS, _TOLD, _MOST_DECIMALS = 12, 1000, 3, 10
_CAPTIONS: Mapping[Kind, tuple[str, str]] = {
    "history": ("Values by trial", "Every trial's value, and the best so far."),
    "curves": ("Learning curves", "What each trial reported; a cross is where one was stopped or failed."),
    "importance": (
        "Importance",
        "An estimate by PED-ANOVA, not a measurement: how much each parameter differs between the better "
        "half of the trials and all. One without any effect gets a share too, the more the fewer trials "
        "there are.",
    ),
    "slices": (
        "Each parameter by itself",
        "The parameter that matters most comes first; stopped trials stand at the bad end.",
    ),
    "parallel": (
        "All parameters together",
        "A line is a complete trial. What matters most stands at the left, the value at the right.",
    ),
    "pareto": ("Pareto front", "No other trial is better than one of the front in every objective."),
}  # fmt: skip


def render_report(view: StudyView) -> str:
    """The page of a study as HTML text; it needs no other file."""
    sections = [Section(title="What was learnt", text=tuple(sentences(view)), tables=_best_tables(view))]
    sections += _drawn(view, "How it went", ("history", "curves"))
    sections += _drawn(view, "What matters", ("importance", "slices", "parallel"))
    sections += _drawn(view, "Trade-offs", ("pareto",))
    sections.append(Section(title="All trials", tables=(_ranked_table(view),)))
    if causes(view):
        sections.append(Section(title="Failures", tables=(_failure_table(view),)))
    subtitle = "; ".join(f"{each.direction} {each.metric}" for each in view.objectives)
    return render(
        Page(title=f"Study {view.name}", subtitle=subtitle, sections=tuple(sections), facts=_facts(view))
    )


# -- sentences -----------------------------------------------------------------------------------------


def sentences(view: StudyView) -> list[str]:
    """What was learnt, each sentence computed from the trials."""
    told = [_best_sentence(view), *_confirmation_sentences(view), *_front_sentences(view)]
    told += [f"The search began with what an earlier study had measured: {each}." for each in view.earlier]
    told += _importance_sentences(view)
    return [*told, *_failure_sentences(view), *_savings_sentences(view)]


def _best_sentence(view: StudyView) -> str:
    metric, best, found = view.objectives[0].metric, view.best, gain(view)
    if best is None or best.trial.value is None:
        return f"No trial has a value of {metric} that counts, so nothing can be said of it."
    by = " by the first objective" if len(view.objectives) > 1 else ""
    has = f"Trial {best.trial.number} is best{by}: its {metric} is {_n(best.trial.value)}"
    at = f" with a budget of {best.trial.budget}" if best.trial.budget is not None else ""
    if found is None:
        return f"{has}{at}. {_no_default(view)} How much the search gained over it is not known."
    if found.difference <= 0:
        return f"{has}{at}. The search found nothing better than the default configuration."
    side = "lower" if view.objectives[0].direction == "minimize" else "higher"
    share = "" if found.share is None else f", or {_part(found.share)}"
    default = found.default.trial
    return (
        f"{has}{at}, against {_n(default.value)} of the default configuration (trial {default.number}): "
        f"{_n(found.difference)} {side}{share}."
    )


def _no_default(view: StudyView) -> str:
    """Why there is nothing to compare with."""
    tried = next((each.trial for each in view.trials if each.trial.source == "default"), None)
    if tried is None:
        return "The default configuration was not tried."
    if tried.value is not None and default_like_best(view) is None:
        return f"The default configuration has a value only with a budget of {tried.budget}."
    words = {"FAILED": "failed", "PRUNED": "was stopped early", "RUNNING": "has not ended"}
    return f"The default configuration (trial {tried.number}) {words.get(tried.state.value, 'has no value')}."


def _confirmation_sentences(view: StudyView) -> list[str]:
    """What other seeds say of the gain; without any, why the best value may be flattered."""
    kept = view.confirmation
    best, default = _numbers(kept.get("best")), _numbers(kept.get("default"))
    tried = len(counted(view))
    if not best and tried < 2:
        return []
    if not best:
        why = "nothing was measured again with other seeds."
        if kept.get("wanted"):
            why = "it was to be measured again with other seeds, and no training gave a value."
        return [f"As the best of {tried} values it owes something to chance: {why}"]
    count, trial = len(kept.get("seeds") or best), kept.get("trial")
    other = view.best is not None and trial not in (None, view.best.trial.number)
    which = f"trial {trial}, the best at that time," if other else "the best configuration"
    told = f"Measured again with {count} other seed{'s' if count != 1 else ''}, {which} has "
    told += f"{_n(_mean(best))} in the mean" + (f", the default {_n(_mean(default))}" if default else "")
    return [f"{told}{_gain_words(kept.get('gain') or {})}."]


def _gain_words(kept: Mapping[str, Any]) -> str:
    """The gain over the default with its interval, and whether that leaves any doubt."""
    mean, low, high = (kept.get(name) for name in ("mean", "low", "high"))
    if mean is None:
        return ""
    if low is None or high is None:
        return f": a gain of {_n(mean)}, of which one seed cannot tell how much is chance"
    doubt = ", which may be none" if low <= 0 else ""
    return f": a gain of {_n(mean)} (95 % interval {_n(low)} to {_n(high)}){doubt}"


def _front_sentences(view: StudyView) -> list[str]:
    if len(view.objectives) < 2 or not view.front:
        return []
    numbers = ", ".join(str(each.trial.number) for each in view.front[:20])
    more = ", ..." if len(view.front) > 20 else ""
    count = len(view.front)
    return [f"{count} of {len(counted(view))} trials are on the Pareto front: {numbers}{more}."]


def _importance_sentences(view: StudyView) -> list[str]:
    found, known = importances(view), {each.name: each for each in factors(view)}
    if found is None:
        complete = len(counted(view))
        if 0 < complete < FEWEST_FOR_IMPORTANCE:
            return [f"Too few trials are complete ({complete}) to say which parameters matter."]
        return []
    first = list(islice(((n, share) for n, share in found.items() if share > 0), _TOLD))
    listed = ", ".join(f"{name} ({percent(share)})" for name, share in first)
    told = [f"By an estimate, what matters most is {listed}."]
    parts = [better_part(view, known[name]) for name, _ in first]
    return told + [_part_sentence(view, part) for part in parts if part is not None]


def _part_sentence(view: StudyView, part: Part) -> str:
    """Where along a parameter the better trials were."""
    name = part.factor.name
    if not part.clear:
        sides = "no option" if part.option else "neither half of its range"
        return f"{name}: {sides} was clearly better."
    if part.option:
        where = f"{name}: {part.option} was the best option"
    else:
        half = "upper" if part.upper else "lower"
        where = f"{name}: the {half} half of its range ({_n(part.low)} to {_n(part.high)}) was better"
    return (
        f"{where}: {_group(view, part.inside)}, against {_group(view, part.outside)} elsewhere; "
        f"of two trials the one from there was better in {percent(part.wins)}."
    )


def _group(view: StudyView, costs: Sequence[float]) -> str:
    """How trials did: how many were stopped or not promoted, and the median of the others."""
    values = [view.objectives[0].sign * cost for cost in costs if math.isfinite(cost)]
    lost = len(costs) - len(values)
    told = f"{len(costs)} trials" + (f", {lost} of them given up early" if lost else "")
    return f"{told}, a median of {_n(statistics.median(values))}" if values else told


def _failure_sentences(view: StudyView) -> list[str]:
    found = causes(view)
    if not found:
        return []
    count = sum(len(cause.trials) for cause in found)
    listed = ", ".join(f"{len(cause.trials)} {cause.name}" for cause in found)
    return [f"{count} of {len(view.trials)} trials failed: {listed}. A failed trial counts as no value."]


def _savings_sentences(view: StudyView) -> list[str]:
    found = savings(view)
    if found is None:
        return []
    return [
        f"{found.trials} trial{'s were' if found.trials > 1 else ' was'} stopped early, at step "
        f"{_n(found.reached)} of {found.full} in the median. That saved {found.steps:,} steps, "
        f"about {_duration(found.seconds)} of training at the pace of whole trials."
    ]


# -- tables --------------------------------------------------------------------------------------------


def _facts(view: StudyView) -> tuple[Fact, ...]:
    counts, best, found = view.counts(), view.best, gain(view)
    metric = view.objectives[0].metric
    facts = []
    if best is not None and best.trial.value is not None:
        facts.append(Fact(value=_n(best.trial.value), label=f"best {metric}"))
    if found is not None:
        value = _n(found.difference) if found.share is None else _part(found.share)
        facts.append(Fact(value=value, label="better than the default"))
    facts.append(Fact(value=str(len(view.trials)), label="trials"))
    words = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAILED": "failed", "RUNNING": "running"}
    facts += [Fact(value=str(counts[state]), label=word) for state, word in words.items() if counts[state]]
    return (*facts, Fact(value=_duration(wall_s(view)), label="from first to last"))


def _best_tables(view: StudyView) -> tuple[Table, ...]:
    """The best configuration beside the default one."""
    best = view.best
    if best is None:
        return ()
    default = next((each for each in view.trials if each.trial.source == "default"), None)
    other = {} if default is None else default.assignments
    names = list(dict.fromkeys([*best.assignments, *other]))
    rows = tuple((name, _text(best.assignments, name), _text(other, name)) for name in names)
    changed = frozenset(i for i, (_, one, two) in enumerate(rows) if other and one != two)
    columns = (Column(title="parameter"), Column(title="best"), Column(title="default"))
    caption = f"The best configuration, trial {best.trial.number}; marked is what differs from the default"
    return (Table(caption=caption, columns=columns, rows=rows, strong=changed),)


def _text(assignments: Mapping[str, Any], name: str) -> str | None:
    return label(assignments[name]) if name in assignments else None


def _ranked_table(view: StudyView) -> Table:
    """All trials, the best first; those that cannot be compared have no rank."""
    compared = {trial.number for trial in counted(view)}
    axes, trials = leading(view, _MOST_COLUMNS), view.ranked[:_MOST_ROWS]
    rows: list[tuple[Value, ...]] = []
    for place, each in enumerate(trials, start=1):
        rank = place if each.trial.number in compared else None
        cells = (_cell(axis, each) for axis in axes)
        rows.append((rank, *_outcome(view, each), *cells, each.trial.why or None))
    front = {each.trial.number for each in view.front}
    marked = "the best and the Pareto front" if len(front) > 1 else "the best"
    return Table(
        caption=f"All trials by rank; marked is {marked}", columns=_ranked_columns(view, axes),
        rows=tuple(rows), note=_omitted(view, len(factors(view)) - len(axes)),
        strong=frozenset(i for i, each in enumerate(trials) if each.trial.number in front),
        unranked=frozenset(i for i, each in enumerate(trials) if each.trial.number not in compared),
    )  # fmt: skip


def _ranked_columns(view: StudyView, axes: Sequence[Factor]) -> tuple[Column, ...]:
    places = range(len(view.objectives))
    values = [[t.values[k] for t in counted(view) if t.values] for k in places]
    return (
        Column(title="rank"), Column(title="trial"), Column(title="state"),
        *(Column(title=o.metric, decimals=_decimals(v, 4), best="low" if o.sign > 0 else "high")
          for o, v in zip(view.objectives, values, strict=True)),
        Column(title="step"), Column(title="seconds", decimals=1), Column(title="source"),
        *(Column(title=axis.name, decimals=_decimals(_numbers(axis.values.values()), 3)) for axis in axes),
        Column(title="why it has no value"),
    )  # fmt: skip


def _outcome(view: StudyView, each: TrialView) -> tuple[Value, ...]:
    trial = each.trial
    values: Sequence[Value] = trial.values or (None,) * len(view.objectives)
    if trial.state is TrialState.PRUNED:  # where it stood when it was stopped, in the column of its value
        values = (standing(trial), *values[1:])
    words = {"PRUNED": "stopped", "COMPLETE": "complete", "FAILED": "failed", "RUNNING": "running"}
    step = max(trial.curve, default=trial.budget)
    return (trial.number, words[trial.state.value], *values, step, seconds_of(each), trial.source)


def _omitted(view: StudyView, axes: int) -> str:
    """What the table does not show, and where it is."""
    rows = len(view.trials) - _MOST_ROWS
    left = [f"{rows} more trials"] * (rows > 0) + [f"{axes} more parameters"] * (axes > 0)
    where = f"{' and '.join(left)}: `modelyard tune export {view.name} --out trials.csv`. " if left else ""
    return f"{where}A stopped trial shows its last value and has no rank."


def _cell(axis: Factor, each: TrialView) -> Value:
    value = axis.values.get(each.trial.number)
    if value is None:
        return None
    return label(value) if axis.options or not isinstance(value, int | float) else value


def _failure_table(view: StudyView) -> Table:
    rows = tuple(
        (cause.name, len(cause.trials), ", ".join(map(str, cause.trials[:20])), cause.example)
        for cause in causes(view)
    )
    titles = ("cause", "trials", "numbers", "what the last of them said")
    return Table(
        caption="Failed trials by cause", columns=tuple(Column(title=each) for each in titles), rows=rows
    )


# -- drawings and numbers ------------------------------------------------------------------------------


def _drawn(view: StudyView, title: str, kinds: Sequence[Kind]) -> list[Section]:
    """The pictures that can be drawn; no section where none can."""
    figures = [
        Figure(svg=to_svg(picture(view, kind)), alt=f"{_CAPTIONS[kind][0]} of study {view.name}",
               caption=" ".join((f"{_CAPTIONS[kind][0]}.", _CAPTIONS[kind][1])))
        for kind in kinds
        if not why_not(view, kind)
    ]  # fmt: skip
    return [Section(title=title, figures=tuple(figures))] if figures else []


def _decimals(values: Sequence[float], digits: int) -> int:
    """So many that the smallest number keeps its digits, and values near each other differ."""
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return 2
    wanted = digits - 1 - math.floor(math.log10(min(sizes)))
    spread = max(values) - min(values)
    if spread > 0:
        wanted = max(wanted, digits - 2 - math.floor(math.log10(spread)))
    return min(max(wanted, 0), _MOST_DECIMALS)


def _numbers(values: Any) -> list[float]:
    return [float(v) for v in values or () if isinstance(v, int | float) and not isinstance(v, bool)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _n(value: float | None) -> str:
    return "–" if value is None else shown(value, digits=4)


def _part(share: float) -> str:
    """A gain in percents; a loss that is not quite gone is not told as gone."""
    return "over 99 %" if 0.99 < share < 1 else percent(share)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
