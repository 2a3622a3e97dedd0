"""A certificate as people look at it: wins and losses, the interval and margin, critical failures.

Everything is read from the certificate's own files; nothing is computed that could differ from what is
signed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import EvidenceError
from modelyard.core.files import read_json
from modelyard.reports.charts import MUTED, PALETTE, Bar, bar_chart, to_svg
from modelyard.reports.page import Column, Fact, Figure, Page, Section, Table
from modelyard.reports.panels import Note, Panel, Scale, Strokes, panels_chart

#: So many losses are shown with both answers; the others by their ids.
_SHOWN = 20
_LONGEST = 1200
_WORDS = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}


def certificate_page(report_path: Path) -> Page:
    """The page of one certificate. Raises `EvidenceError` where its files cannot be read."""
    report = read_report(report_path)
    candidate, baseline = report["candidate"]["name"], report["baseline"]["name"]
    return Page(
        title=f"{candidate} beside {baseline}",
        subtitle=f"{_WORDS[report['verdict']]}, {report['created_at'][:19]}, certificate {report['id']}",
        sections=certificate_sections(report, report_path.parent),
        facts=certificate_facts(report),
        footer=f"key {report['signature']['key_id']}; pack {report['prompt_pack']['digest']}",
    )


def read_report(path: Path) -> Mapping[str, Any]:
    """A report's record. Raises `EvidenceError`."""
    try:
        report: Mapping[str, Any] = read_json(path)
        report["effect"]["delta"], report["signature"]["key_id"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError(f"{path}: is no report of a paired evaluation ({error}); give another") from error
    return report


def certificate_facts(report: Mapping[str, Any]) -> tuple[Fact, ...]:
    """What stands at the head of the page."""
    effect, critical = report["effect"], report["critical"]
    low, high = effect["ci"]
    return (
        Fact(value=_WORDS[report["verdict"]], label="verdict"),
        Fact(value=_points(effect["delta"]), label="points over the baseline"),
        Fact(value=f"{_points(low)} to {_points(high)}", label=f"interval at {100 * effect['level']:.0f} %"),
        Fact(value=f"{report['items_asked']:,} of {report['prompt_pack']['n']:,}", label="items asked"),
        Fact(value=str(len(critical["new_failures"])), label="new critical failures"),
    )


def certificate_sections(report: Mapping[str, Any], folder: Path) -> tuple[Section, ...]:
    """Decision, outcome, evidence over items where it was sequential, failures, and what was compared."""
    sections = [_decision(report), _outcome(report)]
    if report["looks"]:
        sections.append(_evidence(report))
    return (*sections, _failures(report, folder), _compared(report))


def _decision(report: Mapping[str, Any]) -> Section:
    design = report["design"]
    better = design["alternative"] == "superiority"
    claim = "is better" if better else f"is at most {100 * design['margin']:g} points worse"
    names = report["candidate"]["name"], report["baseline"]["name"]
    method = report["effect"]["method"].replace("_", " ")
    told = (
        f"What was to be shown: {names[0]} {claim} than {names[1]}, at a level of "
        f"{100 * design['alpha']:.3g} % (one-sided), by {method}."
    )
    return Section(
        title="Decision", text=(f"Verdict: {_WORDS[report['verdict']]}.", *report["reasons"], told)
    )


def _outcome(report: Mapping[str, Any]) -> Section:
    counts = report["counts"]
    bars = [
        Bar(name="both pass", value=counts["n11"], label=str(counts["n11"])),
        Bar(name="candidate wins", value=counts["n01"], label=str(counts["n01"]), strong=True),
        Bar(name="candidate loses", value=counts["n10"], label=str(counts["n10"]), strong=True),
        Bar(name="both fail", value=counts["n00"], label=str(counts["n00"])),
    ]
    missing = (
        f"Answers that are missing, failed or cut off count as failures: {counts['missing_base']} of the "
    )
    missing += f"baseline, {counts['missing_cand']} of the candidate."
    return Section(
        title="Paired outcome",
        text=(missing,),
        figures=(
            Figure(
                svg=to_svg(bar_chart(bars, x_label="items")),
                alt=", ".join(f"{bar.name} {bar.label}" for bar in bars),
                caption="Each item once: what both models made of it.",
            ),
            _interval(report),
        ),
    )


def _interval(report: Mapping[str, Any]) -> Figure:
    """The interval of the difference, beside nothing and the margin."""
    effect, margin = report["effect"], report["design"]["margin"]
    low, high = (100 * bound for bound in effect["ci"])
    delta = 100 * effect["delta"]
    reach = 1.15 * max(abs(low), abs(high), 100 * margin, 1.0)
    upright = np.array([-0.4, 0.4])
    strokes = [
        Strokes(
            x=np.array([low, high]), y=np.zeros(2), line_pt=2.0, marker="|", size_pt=9.0, name="interval"
        ),
        Strokes(x=np.array([delta]), y=np.zeros(1), size_pt=7.0, name="difference"),
        Strokes(x=np.zeros(2), y=upright, line_pt=1.0, marker="", colour=MUTED, name="no difference"),
    ]
    if margin:
        at = np.full(2, -100 * margin)
        strokes.append(
            Strokes(x=at, y=upright, line_pt=1.2, marker="", colour=PALETTE[1], dashed=True, name="margin")
        )
    panel = Panel(
        strokes=tuple(strokes),
        across=Scale(label="points", low=-reach, high=reach),
        up=Scale(names=("gain",)),
        notes=(Note(text=f"{delta:+.2f}", x=delta, y=0.0),),
    )
    return Figure(
        svg=to_svg(panels_chart([panel], height_pt=110.0)),
        alt=f"difference {delta:+.2f} points, interval {low:+.2f} to {high:+.2f}, margin {100 * margin:g}",
        caption="The candidate's mean less the baseline's, in points of 100.",
    )


def _evidence(report: Mapping[str, Any]) -> Section:
    design, looks = report["design"], report["looks"]
    items = np.array([look["items"] for look in looks], dtype=float)
    wanted = 1.0 / design["alpha_early"] if design["alpha_early"] else math.inf
    strokes = [
        Strokes(x=items, y=_positive(looks, "e_value"), line_pt=1.6, marker="", name="for the claim"),
        Strokes(
            x=items,
            y=_positive(looks, "e_against"),
            line_pt=1.6,
            marker="",
            colour=PALETTE[1],
            name="against it",
        ),
    ]
    if math.isfinite(wanted):
        level = np.full(2, wanted)
        ends = np.array([0.0, float(report["prompt_pack"]["n"])])
        strokes.append(
            Strokes(x=ends, y=level, line_pt=1.0, marker="", colour=MUTED, dashed=True, name="enough")
        )
    across = Scale(label="items asked", low=0.0, high=float(report["prompt_pack"]["n"]), whole=True)
    panel = Panel(strokes=tuple(strokes), across=across, up=Scale(label="e-value", log=True))
    return Section(
        title="Evidence over items",
        text=(
            f"Asking ends early once the evidence reaches {wanted:.0f}: a true null reaches that with a "
            f"probability of at most {100 * design['alpha_early']:.3g} %, however often one looks.",
        ),
        figures=(
            Figure(
                svg=to_svg(panels_chart([panel], height_pt=220.0)),
                alt=f"e-value {looks[-1]['e_value']:.3g} after {looks[-1]['items']} items",
            ),
        ),
    )


def _failures(report: Mapping[str, Any], folder: Path) -> Section:
    new, lost = list(report["critical"]["new_failures"]), list(report["pairwise_losses"])
    critical = report["critical"]
    told = (
        f"{critical['passed']} of {critical['n']} critical answers pass, which shows that at least "
        f"{100 * critical['lower95']:.1f} % do (95 %, one-sided)."
        if critical["n"]
        else "No item of the pack is critical."
    )
    named = list(dict.fromkeys([*new, *lost]))
    shown = named[:_SHOWN]
    rows = _answers(folder, report["raw_outputs"], _questions(folder), shown)
    tables = []
    if rows:
        columns = tuple(Column(title=each) for each in ("item", "question", "baseline", "candidate"))
        strong = frozenset(index for index, row in enumerate(rows) if row[0] in new)
        caption = "Items that the baseline passes and the candidate fails; critical ones are set off."
        tables.append(Table(caption=caption, columns=columns, rows=tuple(rows), strong=strong))
    rest = named[_SHOWN:]
    text = (told, *((f"And: {', '.join(rest)}.",) if rest else ()))
    return Section(title="Failures", text=text, tables=tuple(tables))


def _compared(report: Mapping[str, Any]) -> Section:
    pack, look = report["prompt_pack"], report["look"]
    overlap = pack["overlap"]
    found = "not checked" if overlap is None else f"{overlap['exact']} exact, {overlap['ngram']} by n-grams"
    return Section(
        title="What was compared",
        terms=(
            ("candidate", f"{report['candidate']['name']}, {report['candidate']['digest']}"),
            ("baseline", f"{report['baseline']['name']}, {report['baseline']['digest']}"),
            (
                "pack",
                f"{pack['name']}, split {pack['split']}: {pack['n']} items, {pack['clusters']} clusters",
            ),
            ("overlap with training data", found),
            ("look at the split", f"{look['split_looks']}, retired after {look['retired_at']}"),
            ("raw answers", f"{report['raw_outputs']}, {report['raw_outputs_digest']}"),
            ("code", report["code_digest"]),
        ),
    )


def _questions(folder: Path) -> dict[str, str]:
    questions = {}
    for line in (folder / "pack.jsonl").read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        messages = "\n".join(each["content"] for each in item.get("messages", ()))
        questions[item["prompt_id"]] = item.get("prompt") or messages
    return questions


def _answers(
    folder: Path, name: str, questions: Mapping[str, str], wanted: Sequence[str]
) -> list[tuple[str, str, str, str]]:
    """Item, question and both models' first answers."""
    said: dict[tuple[str, str], str] = {}
    for line in (folder / name).read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        if answer["item"] in wanted and answer["sample"] == 0:
            text = answer["text"] if answer["text"] is not None else f"(no answer: {answer['error']})"
            said[answer["item"], answer["side"]] = _cut(text)
    return [
        (
            item,
            _cut(questions.get(item, "")),
            said.get((item, "baseline"), ""),
            said.get((item, "candidate"), ""),
        )
        for item in wanted
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _positive(looks: Sequence[Mapping[str, Any]], name: str) -> Any:
    """E-values for a logarithmic scale; what has come to nothing lies at its lower end."""
    return np.maximum(np.array([look[name] for look in looks], dtype=float), 1e-4)


def _points(share: float) -> str:
    return f"{100 * share:+.2f}".replace("-", "\u2212")
