"""Pictures of a router: its curve, its map, its profiles and what it costs, drawn by `reports`."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.core.files import write_whole
from modelyard.reports.charts import (
    INK,
    MUTED,
    PALETTE,
    Band,
    Line,
    house_style,
    line_chart,
    logarithmic,
    to_svg,
)
from modelyard.reports.heatmap import Grid, HeatMap, heat_maps, to_png
from modelyard.reports.scatter import Axis, Group, Label, Trace, colours_of, scatter_chart
from modelyard.routing.answers import Embeddings, Floats, Integers
from modelyard.routing.deferral import choices
from modelyard.routing.measuring import HeldOut, band, refuse_empty

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from modelyard.routing.router import Router

_SUFFIXES = (".svg", ".png")
_GRID, _DRAWS = 400, 500
#: Winners with a colour of their own, points that are drawn, and models that are labelled all.
_COLOURED, _DRAWN, _LABELLED = len(PALETTE), 3000, 12
#: Costs are drawn by their logarithms where the cheapest model costs less than this part of the dearest.
_LOG_BELOW = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Territory:
    """Who wins at one weight: by fit prompt, [N], and in each cluster, [K], by rows of `names`."""

    names: tuple[str, ...]
    winner_n: Integers
    # The one that wins most of the cluster's prompts; -1 where it has none.
    winner_k: Integers
    prompts_k: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What a router costs at some weights, and each model alone; USD a day and shares of right answers."""

    lambdas: tuple[float, ...]
    usd_l: Floats
    quality_l: Floats
    names: tuple[str, ...]
    usd_m: Floats
    quality_m: Floats


def check_picture(path: Path) -> None:
    """Find out before long work whether a picture can be made.

    Raises:
        RoutingError: The path's end is no known format, its folder is not there, or matplotlib is not.
    """
    if path.suffix not in _SUFFIXES:
        raise RoutingError(f"{path}: a plot ends in {' or '.join(_SUFFIXES)}; give such a path")
    if not path.parent.is_dir():
        raise RoutingError(f"{path.parent}: is not a folder; make it, or give another path for the plot")
    if importlib.util.find_spec("matplotlib") is None:
        raise RoutingError(
            f"{path}: cannot be drawn without matplotlib; install it with pip install 'modelyard[report]'"
        )


def write_picture(figure: Figure, path: Path) -> None:
    """As an SVG or a PNG file, by the end of the path."""
    write_whole(path, to_png(figure) if path.suffix == ".png" else to_svg(figure))


def curve_picture(measured: HeldOut, *, seed: int = 0) -> Figure:
    """The deferral curves of the router with a 90 % band, of the ZeroRouter and of the oracle."""
    cost_m = measured.spent_usd_m
    dearest = float(cost_m.max())
    cheapest = float(cost_m.min()) / dearest
    log = 0 < cheapest < _LOG_BELOW
    grid = (np.geomspace if log else np.linspace)(cheapest, 1.0, _GRID)
    router = measured.router(dearest)
    low, high = band(router, grid, draws=_DRAWS, seed=seed)
    lines = [
        Line(name="router", y=router.curve().at(grid), colour=PALETTE[0], width_pt=2.0),
        Line(name="ZeroRouter", y=measured.zero_router(dearest).curve().at(grid), colour=PALETTE[1]),
        Line(name="oracle", y=measured.oracle(dearest).curve().at(grid), colour=MUTED, dashed=True),
    ]
    figure = line_chart(
        grid, lines, y_label=f"share of right answers on {len(measured.examples):,} prompts",
        band=Band(low=low, high=high, colour=PALETTE[0]),
        x_label="mean cost relative to the dearest model; band: 90 % of samples of the prompts; "
        "dots: single models within these bounds",
    )  # fmt: skip
    with house_style():
        axes = figure.axes[0]
        bounds = axes.get_ylim()
        if log:
            logarithmic(axes, "x")
        axes.scatter(
            cost_m / dearest, measured.quality_mq.mean(axis=1), s=12, color=INK, linewidths=0, zorder=3
        )
        axes.set_ylim(bounds)  # the names at the right stand by them
        if cheapest < 1.0:
            axes.set_xlim(cheapest, 1.0)
    return figure


def territory(router: Router, lambda_: float) -> Territory:
    """Who wins each fit prompt at a weight of relative cost, by the router's predictions alone."""
    refuse_empty(router)
    clusters, count = router.pool.clusters_n, len(router.clusters)
    predicted = router.predicted(router.pool.embeddings_nd)
    dearest = router.pool.dearest_usd if router.pool.dearest_usd > 0 else 1.0
    winner_n = choices(predicted.errors_mq, predicted.cost_usd_mq / dearest, lambda_)
    won_km = np.zeros((count, len(router.names)), np.int64)
    np.add.at(won_km, (clusters, winner_n), 1)
    prompts_k = won_km.sum(axis=1)
    return Territory(
        names=router.names,
        winner_n=winner_n,
        winner_k=np.where(prompts_k > 0, won_km.argmax(axis=1), -1),
        prompts_k=prompts_k,
    )


def map_picture(router: Router, won: Territory, *, lambda_: float) -> Figure:
    """The fit prompts in the plane of their two principal components, in the colour of who wins them."""
    points, share = plane(router.pool.embeddings_nd)
    counts = np.bincount(won.winner_n, minlength=len(won.names))
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    drawn = np.arange(0, len(points), max(1, -(-len(points) // _DRAWN)))
    groups = [
        _group(f"{won.names[i]} {_percent(counts[i] / len(points))}", points[drawn[won.winner_n[drawn] == i]])
        for i in order[:_COLOURED]
    ]
    rest = order[_COLOURED:]
    if rest:
        told = f"{len(rest)} others {_percent(counts[rest].sum() / len(points))}"
        groups.append(_group(told, points[drawn[np.isin(won.winner_n[drawn], rest)]], colour=MUTED))
    colours = dict(zip(order, colours_of(groups), strict=False))
    few = len(router.clusters) <= _LABELLED
    labels = [
        Label(
            text=f"{k} {won.names[int(won.winner_k[k])]}" if few else str(k),
            x=float(points[router.pool.clusters_n == k, 0].mean()),
            y=float(points[router.pool.clusters_n == k, 1].mean()),
            colour=INK if few else colours.get(int(won.winner_k[k]), MUTED),
            strong=True,
        )
        for k in np.argsort(-won.prompts_k, kind="stable").tolist()
        if won.prompts_k[k]
    ]
    told = "labels: cluster and model" if few else "numbers: clusters, in the colour of their model"
    across = Axis(
        label=f"first principal component; the plane has {_percent(share)} of the variance", ticks=False
    )
    up = Axis(
        label=f"{len(points):,} fit prompts, each in the colour of its model at lambda {lambda_:g}; {told}",
        ticks=False,
    )
    return scatter_chart(groups, (across, up), labels=labels)


def plane(embeddings_nd: Embeddings) -> tuple[Floats, float]:
    """Coordinates on the two principal components, [N, 2], and their share of the variance.

    Signs are such that the largest weight of each component is positive.
    """
    centred = embeddings_nd.astype(np.float64) - embeddings_nd.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    first = vectors[:, ::-1][:, :2]
    first = first * np.sign(first[np.abs(first).argmax(axis=0), [0, 1]])
    total = float(values.sum())
    return centred @ first, float(values[-2:].sum()) / total if total > 0 else 1.0


def profiles_picture(router: Router) -> Figure:
    """Each model's predicted error in each cluster, the best model on top; crosses where it has no answer."""
    refuse_empty(router)
    order = np.argsort(router.mean_errors(), kind="stable")
    psi_mk, answers_mk = router.models.psi_mk[order], router.models.answers_mk[order]
    size_k = np.bincount(router.pool.clusters_n, minlength=len(router.clusters))
    grid = Grid(
        rows=[router.names[int(i)] for i in order],
        columns=[str(k) for k in range(len(router.clusters))],
        x_label="cluster",
    )
    least, most = int(size_k.min()), int(size_k.max())
    sizes = f"{least:,} in each cluster" if least == most else f"{least:,} to {most:,} in a cluster"
    note = f"{len(router.pool.examples):,} fit prompts, {sizes}"
    blank = answers_mk == 0
    if blank.any():
        note += "; × no answer there: known from the model's other answers alone"
    figure = heat_maps(
        [HeatMap(title="Predicted error by model and cluster", values=psi_mk, note=note)], grid
    )
    with house_style():
        rows, columns = np.nonzero(blank)
        figure.axes[0].scatter(columns + 0.5, rows + 0.5, marker="x", s=18, color=INK, linewidths=1.2)
    return figure


def cost_picture(spent: Spending, *, requests: float) -> Figure:
    """Quality over cost a day: the router as its weight moves, and each model alone."""
    usd = np.concatenate([spent.usd_l, spent.usd_m])
    front = frontier(spent.usd_m, spent.quality_m)
    labelled = range(len(spent.names)) if len(spent.names) <= _LABELLED else front
    at: dict[tuple[float, float], list[str]] = {}
    for weight, x, y in zip(spent.lambdas, spent.usd_l.tolist(), spent.quality_l.tolist(), strict=True):
        at.setdefault((x, y), []).append(f"{weight:g}")
    labels = [
        Label(text=f"λ {', '.join(weights)}", x=x, y=y, colour=PALETTE[0], strong=True)
        for (x, y), weights in at.items()
    ]
    labels += [
        Label(text=spent.names[i], x=float(spent.usd_m[i]), y=float(spent.quality_m[i])) for i in labelled
    ]
    groups = [
        Group(name="at these weights", x=spent.usd_l, y=spent.quality_l, colour=PALETTE[0], size_pt=5.0),
        Group(name="one model alone", x=spent.usd_m, y=spent.quality_m, colour=PALETTE[1], size_pt=5.0),
    ]
    axes = (
        Axis(label=f"USD a day for {requests:,.0f} requests", log=bool((usd > 0).all())),
        Axis(label="share of right answers"),
    )
    order = np.argsort(spent.usd_l, kind="stable")
    trace = Trace(name="router", x=spent.usd_l[order], y=spent.quality_l[order])
    return scatter_chart(groups, axes, labels=labels, trace=trace, height_pt=330)


def frontier(cost_m: Floats, quality_m: Floats) -> list[int]:
    """The models that no other beats at the same cost or less, by rising cost."""
    kept: list[int] = []
    for i in np.lexsort((-quality_m, cost_m)).tolist():
        if not kept or quality_m[i] > quality_m[kept[-1]]:
            kept.append(i)
    return kept


def _group(name: str, points: Floats, colour: str | None = None) -> Group:
    return Group(name=name, x=points[:, 0], y=points[:, 1], colour=colour)


def _percent(share: float) -> str:
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"
