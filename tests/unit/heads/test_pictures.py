"""Pictures of a choice and of a bench: what is in them, and what cannot be drawn."""

from __future__ import annotations

import re

import pytest

from modelyard.core.errors import HeadsError
from modelyard.heads.choosing.choice import ChosenTree
from modelyard.heads.choosing.sizing import Prospect
from modelyard.heads.measuring.benching import WayResult
from modelyard.heads.measuring.intervals import Estimate
from modelyard.heads.pictures import (
    _heights,
    bench_picture,
    check_picture,
    choice_picture,
    write_picture,
)
from modelyard.heads.tree import Tree
from modelyard.reports.charts import to_svg

TREE = Tree.of([(0,), (0, 0), (1,), (0, 1), (2,), (0, 0, 3)])


def chosen(tree, prospect):
    sizes = tuple(
        Prospect(nodes=nodes, tokens_per_pass=1 + nodes / 10, cost=1.02 + nodes / 50) for nodes in (1, 3, 6)
    )
    return ChosenTree(
        tree=tree, prospect=sizes[prospect] if prospect is not None else None, prospects=sizes, costs=(),
        clock="cpu", dtype="bfloat16", threads=2, data="sha256:1", tokens=9,
    )  # fmt: skip


def told(figure):
    """The words of a drawing."""
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", to_svg(figure))]


def way(name, speed):
    return WayResult(
        name=name, tokens=9, prompts=3, identical=3, regret=None, wall_ms_per_token=1.0, cpu_ms_per_token=1.0,
        tokens_per_pass=Estimate(value=1.5, low=1.2, high=1.9),
        wall_speedup=Estimate(value=speed, low=speed - 0.1, high=speed + 0.1),
        cpu_speedup=Estimate(value=speed, low=speed - 0.2, high=speed + 0.2),
    )  # fmt: skip


def test_the_ends_of_a_tree_stand_apart_and_a_parent_between_its_children():
    heights = _heights(TREE.paths)
    assert set(heights) == {(), *TREE.paths}
    assert [heights[path] for path in ((2,), (1,), (0, 1), (0, 0, 3))] == [0, 1, 2, 3]
    assert heights[0, 0] == heights[0, 0, 3] and heights[0,] == (heights[0, 0] + heights[0, 1]) / 2
    assert heights[()] == (heights[2,] + heights[0,]) / 2


def test_a_choice_is_drawn_with_its_tree():
    words = told(choice_picture(chosen(TREE, 2)))
    assert {"tokens a pass", "cost of a pass", "speed-up", "6 nodes: 1.40"} <= set(words)
    assert "nodes of a tree (bfloat16, 2 threads, cpu time)" in words
    assert "6 nodes, each by the rank of its token" in words
    assert words.count("4") >= 1, "the rank of the end of (0, 0, 3)"


def test_plain_decoding_is_drawn_as_a_root_alone():
    words = told(choice_picture(chosen(Tree(paths=()), None)))
    assert "0 nodes, each by the rank of its token" in words
    assert not any(": 1." in word for word in words), "nothing was chosen"


def test_the_largest_tree_has_room_for_its_ends():
    wide = Tree.of([(rank,) for rank in range(10)] + [(a, b) for a in range(7) for b in range(7)])
    assert (
        choice_picture(chosen(wide, 0)).get_figheight()
        > 1.5 * choice_picture(chosen(TREE, 0)).get_figheight()
    )


def test_a_bench_names_every_way_twice():
    words = told(bench_picture([way("plain", 1.0), way("tree", 1.4), way("tree and lookup", 1.6)]))
    assert [words.count(name) for name in ("plain", "tree", "tree and lookup")] == [2, 2, 2]
    assert {"by the clock", "by the processor", "times as fast as plain decoding"} <= set(words)


def test_the_end_of_the_path_decides_what_is_written(tmp_path):
    figure = choice_picture(chosen(TREE, 1))
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<svg")):
        check_picture(tmp_path / name)
        write_picture(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)


def test_what_cannot_be_drawn_is_told_before_any_work(tmp_path):
    with pytest.raises(HeadsError, match=r"a\.html: a picture ends in \.png or \.svg; give such a path"):
        check_picture(tmp_path / "a.html")
    with pytest.raises(HeadsError, match=r"none: is not a folder; make it"):
        check_picture(tmp_path / "none" / "a.png")
