"""Pictures of how a tree was chosen and of what decoding by it gave, drawn by `reports`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelyard.core.errors import HeadsError
from modelyard.core.files import write_whole
from modelyard.heads.choosing.choice import ChosenTree
from modelyard.heads.choosing.sizing import Prospect
from modelyard.heads.measuring.benching import WayResult
from modelyard.heads.measuring.intervals import Estimate
from modelyard.heads.tree import RankPath, Tree
from modelyard.reports.charts import MUTED, PALETTE, to_svg
from modelyard.reports.heatmap import to_png
from modelyard.reports.panels import Note, Panel, Scale, Strokes, panels_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".svg")
_GAIN, _TOKENS, _COST = PALETTE[2], PALETTE[0], PALETTE[1]
#: How far above and below a way's place its two intervals lie.
_BESIDE = 0.14
#: How high a picture of a choice is, and the room for one end of the tree.
_LEAST_PT, _END_PT = 250.0, 11.0


def check_picture(path: Path) -> None:
    """Find out before long work whether a picture can be made.

    Raises:
        HeadsError: The path's end is no known format, its folder is not there, or matplotlib is not.
    """
    if path.suffix not in _SUFFIXES:
        raise HeadsError(f"{path}: a picture ends in {' or '.join(_SUFFIXES)}; give such a path")
    if not path.parent.is_dir():
        raise HeadsError(f"{path.parent}: is not a folder; make it, or give another path for the picture")
    if importlib.util.find_spec("matplotlib") is None:
        raise HeadsError(
            f"{path}: cannot be drawn without matplotlib; install it with pip install 'modelyard[report]'"
        )


def write_picture(figure: Figure, path: Path) -> None:
    """As an SVG or a PNG file, by the end of the path."""
    write_whole(path, to_png(figure) if path.suffix == ".png" else to_svg(figure))


def choice_picture(choice: ChosenTree) -> Figure:
    """What trees of all sizes are predicted to give and cost, and the tree that was chosen."""
    ends = 1 + max(_heights(choice.tree.paths).values())
    panels = [_sizes(choice), _drawn(choice.tree)]
    return panels_chart(panels, columns=2, height_pt=max(_LEAST_PT, _END_PT * ends))


def bench_picture(results: Sequence[WayResult]) -> Figure:
    """Tokens of a pass and speed-ups of each way, with their intervals over the prompts."""
    gains = [
        *_spans(results, lambda each: each.wall_speedup, name="by the clock", colour=_GAIN, above=_BESIDE),
        *_spans(
            results, lambda each: each.cpu_speedup, name="by the processor", colour=_COST, above=-_BESIDE
        ),
    ]
    tokens = _spans(results, lambda each: each.tokens_per_pass, name="", colour=_TOKENS, above=0)
    panels = [
        _rows(results, tokens, lambda each: each.tokens_per_pass.value, "tokens a pass"),
        _rows(results, gains, lambda each: each.wall_speedup.value, "times as fast as plain decoding"),
    ]
    return panels_chart(panels, columns=2, height_pt=20 + 34 * len(results))


def _rows(
    results: Sequence[WayResult], strokes: Sequence[Strokes], value: Callable[[WayResult], float], label: str
) -> Panel:
    """One row a way, the first on top, with its name over its interval."""
    ways = len(results)
    plain = Strokes(
        x=np.ones(2), y=np.array([-0.5, ways - 0.5]), colour=MUTED, marker="", line_pt=0.8, dashed=True
    )
    names = [
        Note(text=each.name, x=value(each), y=place + _BESIDE) for place, each in enumerate(results[::-1])
    ]
    return Panel(
        strokes=(plain, *strokes), notes=tuple(names), across=Scale(label=label),
        up=Scale(names=("",) * ways),
    )  # fmt: skip


def _sizes(choice: ChosenTree) -> Panel:
    """By how many nodes a tree has: what a pass gives, what it costs, and what that comes to."""
    nodes = np.array([each.nodes for each in choice.prospects], np.float64)

    def line(name: str, colour: str, value: Callable[[Prospect], float], width_pt: float = 1.3) -> Strokes:
        y = np.array([value(each) for each in choice.prospects], np.float64)
        return Strokes(x=nodes, y=y, name=name, colour=colour, line_pt=width_pt, size_pt=3.5)

    lines = (
        line("tokens a pass", _TOKENS, lambda each: each.tokens_per_pass),
        line("cost of a pass", _COST, lambda each: each.cost),
        line("speed-up", _GAIN, lambda each: each.speedup, 2.2),
    )
    notes: list[Note] = []
    if choice.prospect is not None:
        words = f"{choice.prospect.nodes} nodes: {choice.prospect.speedup:.2f}"
        notes.append(Note(text=words, x=choice.prospect.nodes, y=choice.prospect.speedup))
    where = f"{choice.dtype}, {choice.threads} threads, {choice.clock} time"
    return Panel(
        strokes=lines, notes=tuple(notes), up=Scale(label="times plain decoding"),
        across=Scale(label=f"nodes of a tree ({where})", log=True, whole=True),
    )  # fmt: skip


def _drawn(tree: Tree) -> Panel:
    """The tree itself: from the root on the left, the likeliest children on top, the end of each its rank."""
    heights = _heights(tree.paths)
    x = np.array([len(path) for path in heights], np.float64)
    y = np.array(list(heights.values()), np.float64)
    edges = [[(len(path) - 1, heights[path[:-1]]), (len(path), heights[path]), (np.nan, np.nan)]
             for path in heights if path]  # fmt: skip
    along = np.array(edges, np.float64).reshape(-1, 2)
    strokes = [Strokes(x=along[:, 0], y=along[:, 1], colour=MUTED, marker="", line_pt=0.9)] if edges else []
    strokes.append(Strokes(x=x, y=y, colour=_TOKENS, size_pt=4.0))
    return Panel(
        strokes=tuple(strokes),
        notes=tuple(Note(text=str(path[-1] + 1), x=len(path), y=heights[path]) for path in heights if path),
        across=Scale(label="tokens ahead", whole=True, low=0, high=max(1, tree.depth)),
        up=Scale(label=f"{tree.size} nodes, each by the rank of its token", names=("",) * (1 + int(y.max()))),
    )


def _heights(paths: Sequence[RankPath]) -> dict[RankPath, float]:
    """Where each node stands, the root () among them: ends one above the other, others between theirs."""
    children: dict[RankPath, list[RankPath]] = {(): []}
    for path in sorted(paths, key=len):
        children[path] = []
        children[path[:-1]].append(path)
    heights: dict[RankPath, float] = {}
    ends = 0.0

    def place(path: RankPath) -> float:
        nonlocal ends
        below = [place(child) for child in sorted(children[path], reverse=True)]
        if not below:
            ends += 1
        heights[path] = (below[0] + below[-1]) / 2 if below else ends - 1
        return heights[path]

    place(())
    return heights


def _spans(
    results: Sequence[WayResult], value: Callable[[WayResult], Estimate], *, name: str, colour: str,
    above: float,
) -> list[Strokes]:  # fmt: skip
    """A point and its interval for each way, the first way on top."""
    found = [value(result) for result in results[::-1]]
    places = np.arange(len(found), dtype=np.float64) + above
    ends = np.array([(each.low, each.high, np.nan) for each in found], np.float64).reshape(-1)
    return [
        Strokes(x=ends, y=np.repeat(places, 3), colour=colour, marker="", line_pt=1.4),
        Strokes(x=np.array([each.value for each in found]), y=places, name=name, colour=colour),
    ]
