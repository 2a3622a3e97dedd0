"""Pictures of a router: what they show is what the router does, and what stands in their way is told."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.reports.charts import to_svg
from modelyard.routing.answer_table import AnswerTable
from modelyard.routing.answers import Answers
from modelyard.routing.decision import Request
from modelyard.routing.embedders import load_embedder
from modelyard.routing.fitting import RouterOptions
from modelyard.routing.measuring import held_out
from modelyard.routing.pictures import (
    Spending,
    check_picture,
    cost_picture,
    curve_picture,
    frontier,
    map_picture,
    plane,
    profiles_picture,
    territory,
    write_picture,
)
from modelyard.routing.router import Router

WORDS = ("verse rhyme sonnet poem", "function compiler pointer loop")
RATES = {"coder": (0.8, 0.1), "poet": (0.1, 0.8), "small": (0.6, 0.6)}
PRICES = {"coder": 0.02, "poet": 0.01, "small": 0.001}


def table(numbers):
    numbers = np.asarray(numbers)
    chance = np.random.default_rng(int(numbers[0]))
    rates = np.array(list(RATES.values()))[:, numbers % 2]
    answers = Answers(
        models=tuple(RATES),
        examples=tuple(f"q{i}" for i in numbers),
        errors_mn=(chance.random(rates.shape) < rates).astype(float),
        cost_usd_mn=np.repeat(np.array(list(PRICES.values()))[:, None], len(numbers), axis=1),
    )
    return AnswerTable(answers=answers, prompts=tuple(f"{WORDS[i % 2]} {i}" for i in numbers))


def fitted(clusters=2):
    known, options = table(range(100)), RouterOptions(clusters=clusters, estimator="empirical_bayes")
    return Router.fit(known.answers, known.prompts, load_embedder("hashing"), options)


def words(figure):
    root = ElementTree.fromstring(to_svg(figure))
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("lambda_", [0.0, 0.4, 50.0])
def test_the_map_is_of_who_is_chosen(lambda_):
    router = fitted()
    won = territory(router, lambda_)
    decided = router.route_batch(router.pool.embeddings_nd, Request(lambda_=lambda_))
    assert [won.names[i] for i in won.winner_n] == [d.chosen for d in decided]
    assert {(int(c), won.names[won.winner_k[c]]) for c in router.pool.clusters_n} == {
        (d.cluster, d.chosen) for d in decided
    }
    assert won.prompts_k.tolist() == [50, 50]


def test_a_map_names_clusters_and_winners():
    router = fitted()
    told = words(map_picture(router, territory(router, 0.0), lambda_=0.0))
    assert {"coder 50 %", "poet 50 %"} <= set(told)
    assert {text for text in told if re.fullmatch(r"\d [a-z]+", text)} in (
        {"0 coder", "1 poet"}, {"0 poet", "1 coder"},
    )  # fmt: skip
    assert "small" not in " ".join(told), "it wins nowhere"


def test_many_clusters_are_numbered_in_the_colour_of_their_winner():
    router = fitted(clusters=20)
    won = territory(router, 0.0)
    figure = map_picture(router, won, lambda_=0.0)
    labels = {each.get_text(): each.get_color() for each in figure.axes[0].texts if each.get_text().isdigit()}
    assert set(labels) == {str(k) for k in range(20) if won.prompts_k[k]}
    by_winner = {won.names[won.winner_k[int(k)]]: colour for k, colour in labels.items()}
    assert all(by_winner[won.names[won.winner_k[int(k)]]] == colour for k, colour in labels.items())
    assert len(set(by_winner.values())) == len(by_winner)


def test_a_small_share_is_not_told_as_none():
    router = fitted()
    won = territory(router, 0.0)
    rare = np.zeros(1000, np.int64)
    rare[0] = 1
    many = type(won)(names=won.names, winner_n=rare, winner_k=won.winner_k, prompts_k=won.prompts_k)
    points = type(router.pool)(
        examples=tuple(map(str, range(1000))), embeddings_nd=np.tile(router.pool.embeddings_nd, (10, 1)),
        clusters_n=np.tile(router.pool.clusters_n, 10), errors_mn=router.pool.errors_mn, dearest_usd=1.0,
    )  # fmt: skip
    assert "poet under 1 %" in words(map_picture(replace(router, pool=points), many, lambda_=0.0))


def test_more_winners_than_colours_are_grey_together():
    router = fitted(clusters=2)
    count = 100
    won = territory(router, 0.0)
    names = tuple(f"m{i:02}" for i in range(12))
    many = type(won)(
        names=names, winner_n=np.arange(count) % 12, winner_k=np.array([10, 11]), prompts_k=won.prompts_k
    )
    told = words(map_picture(router, many, lambda_=0.0))
    assert "4 others 32 %" in told and "m07 8 %" in told and "m08 8 %" not in told


def test_the_plane_is_that_of_the_principal_components():
    chance = np.random.default_rng(0)
    flat = chance.standard_normal((200, 2)) @ np.array([[3.0, 0, 0, 0], [0, 0, 1.0, 0]])
    points, share = plane((flat + 5).astype(np.float32))
    assert share == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(np.abs(points), np.abs((flat - flat.mean(axis=0))[:, [0, 2]]), atol=0.2)
    assert points[:, 0].std() > points[:, 1].std() > 0


def test_crosses_mark_clusters_without_answers():
    router = fitted()
    poems = {f"q{i}": 0.0 for i in range(0, 40, 2)}
    more = router.onboard("new", poems, cost_usd=0.01)
    figure = profiles_picture(more)
    at = [
        c.get_offsets()
        for c in figure.axes[0].collections
        if len(c.get_offsets()) and hasattr(c, "get_sizes")
    ]
    order = [each.get_text() for each in figure.axes[0].get_yticklabels()]
    blank = int(np.flatnonzero(more.models.answers_mk[more.names.index("new")] == 0)[0])
    assert [tuple(point) for part in at for point in part] == [(blank + 0.5, order.index("new") + 0.5)]
    assert any("no answer there" in text for text in words(figure))
    assert not any("no answer there" in text for text in words(profiles_picture(router)))


def test_a_curve_has_its_comparisons_and_a_band():
    figure = curve_picture(held_out(fitted(), table(range(200, 300))))
    assert {"router", "ZeroRouter", "oracle"} <= set(words(figure))
    band, dots = figure.axes[0].collections[:2]
    assert len(dots.get_offsets()) == 3
    low, high = (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max())
    assert 0 < low < high <= 1


@pytest.mark.parametrize("name", ["coder", "small"])
def test_a_pool_of_one_model_is_drawn(name):
    router = fitted()
    for other in set(RATES) - {name}:
        router = router.remove(other)
    measured = held_out(router, table(range(200, 240)))
    assert len(curve_picture(measured).axes[0].collections[-1].get_offsets()) == 1
    assert f"0 {name}" in words(map_picture(router, territory(router, 1.0), lambda_=1.0))
    assert name in words(profiles_picture(router))


def test_without_models_there_is_nothing_to_draw():
    router = fitted().remove("coder").remove("poet").remove("small")
    for made in (
        lambda: territory(router, 0.0),
        lambda: profiles_picture(router),
        lambda: held_out(router, table(range(200, 240))),
    ):
        with pytest.raises(RoutingError, match="pool of the router is empty"):
            made()


def spending(count=3):
    return Spending(
        lambdas=(0.0, 0.1, 1.0), usd_l=np.array([9.0, 9.0, 2.0]), quality_l=np.array([0.9, 0.9, 0.6]),
        names=tuple(f"m{i}" for i in range(count)), usd_m=np.linspace(1, 10, count),
        quality_m=np.where(np.arange(count) % 2, 0.1, np.linspace(0.3, 0.8, count)),
    )  # fmt: skip


def test_weights_at_one_point_have_one_label():
    told = words(cost_picture(spending(), requests=1000))
    assert {"λ 0, 0.1", "λ 1", "m0", "m1", "m2", "USD a day for 1,000 requests"} <= set(told)


def test_of_many_models_the_frontier_is_named():
    told = words(cost_picture(spending(15), requests=10))
    assert {f"m{i}" for i in range(0, 15, 2)} <= set(told) and not {"m1", "m3"} & set(told)


def test_free_models_are_drawn_on_a_plain_axis():
    spent = spending()
    free = Spending(**{name: getattr(spent, name) for name in spent.__slots__} | {"usd_m": np.zeros(3)})
    assert cost_picture(free, requests=1).axes[0].get_xscale() == "linear"
    assert cost_picture(spent, requests=1).axes[0].get_xscale() == "log"


def test_the_frontier_by_hand():
    cost, quality = np.array([1.0, 2.0, 2.0, 3.0, 4.0]), np.array([0.3, 0.5, 0.6, 0.6, 0.9])
    assert frontier(cost, quality) == [0, 2, 4]


@pytest.mark.parametrize("end", ["svg", "png"])
def test_a_picture_is_written_by_its_end(tmp_path, end):
    path = tmp_path / f"out.{end}"
    check_picture(path)
    write_picture(profiles_picture(fitted()), path)
    assert path.read_bytes().startswith(b"<svg" if end == "svg" else b"\x89PNG")


def test_what_stands_in_the_way_of_a_picture(tmp_path, monkeypatch):
    with pytest.raises(RoutingError, match=r"a plot ends in \.svg or \.png"):
        check_picture(tmp_path / "out.pdf")
    with pytest.raises(RoutingError, match="is not a folder; make it"):
        check_picture(tmp_path / "nowhere" / "out.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    with pytest.raises(
        RoutingError, match=r"without matplotlib; install it with pip install 'modelyard\[report\]'"
    ):
        check_picture(tmp_path / "out.svg")
