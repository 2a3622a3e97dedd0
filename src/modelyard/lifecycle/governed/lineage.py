"""What a governed run was made from and what it became, as a graph of digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelyard.core.files import read_json
from modelyard.core.journal import Entry
from modelyard.lifecycle.governed.request import RunPlaces
from modelyard.lifecycle.governed.weights import kept_weights
from modelyard.reports.charts import INK, MUTED, PALETTE, house_style, to_svg
from modelyard.reports.page import Figure
from modelyard.runs.yard import Yard

_WIDTH_PT, _ROW_PT = 640.0, 46.0
#: The width of a letter, as a share of the figure's.
_LETTER = 0.0078


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One thing: what it is called, its digest, how far from the beginning it is, what it was made from."""

    name: str
    digest: str | None
    depth: int
    parents: tuple[str, ...] = ()


def lineage_of(yard: Yard, run: str, places: RunPlaces) -> tuple[Node, ...]:
    """Start and data, each iteration's weights, its certificate, and the aliases that served it."""
    nodes: list[Node] = []
    entries = list(yard.journal.read())
    iteration = 1
    while (places.iteration(iteration) / "manifest.json").exists():
        manifest = read_json(places.iteration(iteration) / "manifest.json")
        nodes.extend(_iteration(manifest, places, iteration, entries))
        iteration += 1
    for entry in entries:
        made = entry.data["move"] if entry.kind == "alias.intent" else None
        proven = [node.name for node in nodes if made and node.digest == made["evidence_digest"]]
        if made and proven:
            nodes.append(Node(name=made["alias"], digest=made["to_digest"], depth=3, parents=(proven[0],)))
    unique = {node.name: node for node in nodes}
    return tuple(unique.values())


def _iteration(manifest: dict[str, Any], places: RunPlaces, number: int, entries: list[Entry]) -> list[Node]:
    digests, start = manifest["digests"], manifest["training_start"]
    nodes = [Node(name=f"start: {start['chosen']}", digest=start["digest"], depth=0)]
    nodes.extend(
        Node(name=f"data: {name}", digest=digest, depth=0) for name, digest in digests["data"].items()
    )
    made_from = tuple(node.name for node in nodes)
    kept = kept_weights(entries, manifest["run_id"], number)
    if kept:
        nodes.append(Node(name=f"weights {number}", digest=kept[-1], depth=1, parents=made_from))
    evidence = places.evidence(number)
    report = (read_json(evidence).get("report") or {}) if evidence.exists() else {}
    if kept and report:
        pack = Node(name="pack", digest=digests["prompt_pack"], depth=1)
        proven = Node(
            name=f"certificate {number}",
            digest=report["digest"],
            depth=2,
            parents=(f"weights {number}", "pack"),
        )
        nodes.extend([pack, proven])
    return nodes


def lineage_figure(nodes: tuple[Node, ...]) -> Figure:
    """The graph, from left to right by depth."""
    from matplotlib.figure import Figure as New

    columns = {depth: [node for node in nodes if node.depth == depth] for depth in range(4)}
    rows = max((len(each) for each in columns.values()), default=1)
    height = 24 + _ROW_PT * max(rows, 1)
    places = {
        node.name: (0.01 + 0.25 * depth, height - 18 - _ROW_PT * (at + 0.5) * rows / max(len(column), 1))
        for depth, column in columns.items()
        for at, node in enumerate(column)
    }
    with house_style():
        figure = New(figsize=(_WIDTH_PT / 72, height / 72), dpi=72)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 1), ylim=(0, height))
        axes.axis("off")
        for node in nodes:
            x, y = places[node.name]
            axes.text(x, y + 5, node.name[:30], color=INK, fontsize=8.5, va="bottom")
            shown = (node.digest or "").removeprefix("sha256:")[:12] or "–"
            axes.text(x, y + 3, shown, color=MUTED, fontsize=7.5, va="top", family="monospace")
            for parent in node.parents:
                if parent in places:
                    from_x, from_y = places[parent]
                    reach = min(0.215, _LETTER * max(len(parent[:30]), 12) + 0.01)
                    axes.annotate(
                        "", xy=(x - 0.005, y + 4), xytext=(from_x + reach, from_y + 4),
                        arrowprops={"arrowstyle": "->", "color": PALETTE[0], "lw": 0.9},
                    )  # fmt: skip
    told = "; ".join(f"{node.name} from {', '.join(node.parents)}" for node in nodes if node.parents)
    return Figure(svg=to_svg(figure), alt=told or "nothing was made yet")
