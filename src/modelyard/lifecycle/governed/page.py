"""The page of a governed run: the decision and its reasons, the paired outcome, its lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.core.files import read_json, write_whole
from modelyard.evidence.page import certificate_facts, certificate_sections, read_report
from modelyard.lifecycle.governed.lineage import lineage_figure, lineage_of
from modelyard.lifecycle.governed.request import RunPlaces
from modelyard.lifecycle.governed.view import GovernedView, view_governed
from modelyard.reports.page import Column, Fact, Page, Section, Table, render
from modelyard.runs.yard import Yard


def write_page(yard: Yard, run: str, places: RunPlaces) -> Path:
    """Write the page anew; its path. Raises `RunNotFound`."""
    view = view_governed(yard, run, places.run_dir)
    write_whole(places.page, render(run_page(yard, view, places)))
    return places.page


def run_page(yard: Yard, view: GovernedView, places: RunPlaces) -> Page:
    """The page of a run as it stands."""
    iterations = [_evidence(places, number) for number in range(1, view.iteration + 1)]
    last: dict[str, Any] = next((each for each in reversed(iterations) if each), {})
    report_path = (last.get("report") or {}).get("path")
    report = read_report(Path(report_path)) if report_path else None
    facts: tuple[Fact, ...] = (
        Fact(value=view.state, label="state"),
        Fact(value=str(view.iteration), label="iteration"),
    )
    sections = [_standing(view, last)]
    if report is not None and report_path:
        facts = (*facts, *certificate_facts(report))
        sections.extend(certificate_sections(report, Path(report_path).parent))
    sections.extend([_lineage(yard, view, places), _iterations(iterations), _moves(view)])
    manifest = read_json(places.manifest) if places.manifest.exists() else {}
    return Page(
        title=f"Run {view.run}",
        subtitle=f"{manifest.get('model_candidate', '')}: {view.state}; next: {view.next_action}",
        sections=tuple(sections),
        facts=facts,
        footer=str(places.run_dir),
    )


def _standing(view: GovernedView, evidence: dict[str, Any]) -> Section:
    gate, recommended = evidence.get("gate_result"), evidence.get("promotion_recommendation")
    told = [f"The run stands at {view.state}; {view.why}. What is next: {view.next_action}."]
    if recommended:
        told.append(f"The gate: {gate}. Recommended: {recommended.replace('_', ' ')}.")
    return Section(title="Where it stands", text=(*told, *evidence.get("rationale", ())))


def _lineage(yard: Yard, view: GovernedView, places: RunPlaces) -> Section:
    nodes = lineage_of(yard, view.run, places)
    return Section(
        title="Lineage",
        text=("What was made from what; each thing by its digest.",),
        figures=(lineage_figure(nodes),),
        terms=tuple((node.name, node.digest or "not a file of this yard") for node in nodes),
    )


def _iterations(iterations: list[dict[str, Any]]) -> Section:
    rows = tuple(
        (
            each["iteration_id"],
            each["scoring"]["mode"],
            each["gate_result"],
            each["improvement"],
            ", ".join(f"{key} = {value}" for key, value in each["changes"]["training_delta"].items()),
            each["repair_reason"] or "",
        )
        for each in iterations
        if each
    )
    columns = (
        Column(title="iteration"), Column(title="scoring"), Column(title="gate"),
        Column(title="improvement", decimals=4), Column(title="changed"), Column(title="why"),
    )  # fmt: skip
    return Section(title="Iterations", tables=(Table(caption="", columns=columns, rows=rows),))


def _moves(view: GovernedView) -> Section:
    rows = tuple(
        (move.time[:19], move.source or "–", move.target, move.actor, move.reason, ", ".join(move.evidence))
        for move in view.moves
    )
    columns = tuple(Column(title=title) for title in ("time", "from", "to", "by", "why", "evidence"))
    return Section(title="How it came there", tables=(Table(caption="", columns=columns, rows=rows),))


def _evidence(places: RunPlaces, number: int) -> dict[str, Any]:
    path = places.evidence(number)
    record: dict[str, Any] = read_json(path) if path.exists() else {}
    return record
