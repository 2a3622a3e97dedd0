"""Which size pays, by costs that are given: records, no clock."""

from __future__ import annotations

import pytest

from modelyard.heads.choosing.latency import PassCost
from modelyard.heads.choosing.sizing import Prospect, chosen, prospects

COSTS = [
    PassCost(nodes=nodes, wall_s=wall_s, cpu_s=cpu_s)
    for nodes, wall_s, cpu_s in ((8, 0.044, 0.16), (0, 0.04, 0.05), (2, 0.042, 0.06), (30, 0.08, 0.4))
]
TOKENS = {2: 1.3, 8: 1.65, 30: 1.9}


def test_a_prospect_is_tokens_of_a_pass_over_its_cost():
    by_wall = prospects(TOKENS, COSTS, "wall")
    assert [(each.nodes, each.tokens_per_pass) for each in by_wall] == list(TOKENS.items())
    assert [each.cost for each in by_wall] == pytest.approx([1.05, 1.1, 2.0])
    assert [each.speedup for each in by_wall] == pytest.approx([1.3 / 1.05, 1.5, 0.95])
    assert by_wall[1].as_json() == {"nodes": 8, "tokens_per_pass": 1.65, "cost": 1.1, "speedup": 1.5}
    assert [each.cost for each in prospects(TOKENS, COSTS, "cpu")] == pytest.approx([1.2, 3.2, 8.0])


def test_a_size_of_which_no_tokens_are_known_is_left_out():
    assert [each.nodes for each in prospects({2: 1.3, 5: 2.0}, COSTS, "wall")] == [2]


def test_the_fastest_is_chosen_and_which_that_is_depends_on_the_clock():
    assert chosen(prospects(TOKENS, COSTS, "wall")).nodes == 8
    assert chosen(prospects(TOKENS, COSTS, "cpu")).nodes == 2


def test_what_gains_too_little_is_not_chosen():
    found = prospects(TOKENS, COSTS, "cpu")
    assert chosen(found, least_gain=1.08).nodes == 2 and chosen(found, least_gain=1.09) is None
    assert chosen([Prospect(nodes=1, tokens_per_pass=1.05, cost=1.0)]).nodes == 1, "the least gain is enough"
    assert chosen([Prospect(nodes=1, tokens_per_pass=1.04, cost=1.0)]) is None
    assert chosen([]) is None


def test_of_two_that_are_as_fast_the_smaller_is_chosen():
    two = [Prospect(nodes=n, tokens_per_pass=1.5, cost=1.0) for n in (4, 2, 8)]
    assert chosen(two).nodes == 2


def test_a_cost_as_json_is_in_milliseconds():
    assert COSTS[0].as_json() == {"nodes": 8, "wall_ms": 44.0, "cpu_ms": 160.0}
    assert (COSTS[0].by("wall"), COSTS[0].by("cpu")) == (0.044, 0.16)
