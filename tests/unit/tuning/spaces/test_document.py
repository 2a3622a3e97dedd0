"""The plain space of a document: what its keys mean, what its names tell, and every fault at once."""

from __future__ import annotations

import math

import pytest

from modelyard.core.faults import Faults, Section
from modelyard.tuning.spaces.document import read_space
from modelyard.tuning.spaces.domains import Choices, Subset, Vector, Weighted
from modelyard.tuning.spaces.scalars import Ordered, Range
from modelyard.tuning.spaces.space import Condition, Relation

TO_9 = {"low": 0, "high": 9}


def section(data):
    return Section(data, faults=Faults(file="tune.yaml"), path="space")


def read(data):
    """The space of a document without faults."""
    given = section(data)
    space = read_space(given)
    assert given.faults.found == []
    return space


def faults(data):
    """What is wrong with a document, as people read it."""
    given = section(data)
    assert read_space(given).parameters == ()
    return [str(fault) for fault in given.faults.found]


@pytest.mark.parametrize(
    ("name", "given", "domain"),
    [
        ("x", {"low": 0, "high": 1.5}, Range(low=0, high=1.5)),
        ("x", {"low": -3, "high": 4}, Range(low=-3, high=4, integer=True)),
        ("x", {"low": 1, "high": 4, "default": 2.5}, Range(low=1, high=4)),
        ("x", {"low": 0, "high": 1, "step": 0.25}, Range(low=0, high=1, step=0.25)),
        ("x", {"low": 0, "high": 8, "step": 2}, Range(low=0, high=8, step=2, integer=True)),
        ("x", {"low": 1, "high": 4, "integer": False}, Range(low=1, high=4)),
        ("x", {"low": 1.0, "high": 4.0, "integer": True}, Range(low=1.0, high=4.0, integer=True)),
        ("x", {"low": 1, "high": 512, "log": True}, Range(low=1, high=512, integer=True, log=True)),
        ("x", {"above": 0, "high": 4}, Range(low=1, high=4, integer=True)),
        ("x", {"low": 0, "below": 4}, Range(low=0, high=3, integer=True)),
        ("x", {"above": 0.0, "high": 1.0, "step": 0.25}, Range(low=0.25, high=1.0, step=0.25)),
        ("x", {"above": 0.0, "below": 1.0}, Range(low=1e-6, high=1 - 1e-6)),
        # names tell of a log scale, where the range has room for one; and may always be overruled
        ("lr", {"low": 1e-5, "high": 0.1}, Range(low=1e-5, high=0.1, log=True)),
        ("optim.weight_decay", {"low": "1e-5", "high": "1e-1"}, Range(low=1e-5, high=0.1, log=True)),
        ("lr", {"low": 1e-5, "high": 0.1, "log": False}, Range(low=1e-5, high=0.1)),
        ("lr", {"low": 0.0, "high": 0.1}, Range(low=0.0, high=0.1)),
        ("lr", {"low": 0.05, "high": 0.1}, Range(low=0.05, high=0.1)),
        ("lr", {"low": 1, "high": 100}, Range(low=1, high=100, integer=True)),
        ("lr", {"low": 0.1, "high": 10.0, "step": 0.1}, Range(low=0.1, high=10.0, step=0.1)),
        # grids of integers
        ("x", {"low": 1, "high": 40, "power_of": 2}, Ordered(options=(1, 2, 4, 8, 16, 32))),
        ("x", {"above": 4, "high": 16, "power_of": 2}, Ordered(options=(8, 16), first=3)),
        ("x", {"low": 60, "high": 130, "multiple_of": 8}, Range(low=64, high=128, step=8, integer=True)),
        ("x", {"low": 64, "below": 128, "multiple_of": 8}, Range(low=64, high=120, step=8, integer=True)),
        # options
        ("x", {"choices": ["a", None, [1, 2], True]}, Choices(options=("a", None, [1, 2], True))),
        ("x", {"choices": ["a", "b"], "weights": [3, 1]}, Weighted(options=("a", "b"), weights=(3, 1))),
        ("x", {"ordered": [256, 512, 768]}, Ordered(options=(256, 512, 768))),
        ("x", {"subset_of": ["q", "k"]}, Subset(options=("q", "k"))),
        ("x", {"subset_of": ["q", "k"], "allow_empty": True}, Subset(options=("q", "k"), empty=True)),
        # lists
        ("x", {"low": 0, "high": 9, "length": 2}, Vector(items=(Range(low=0, high=9, integer=True),) * 2)),
        ("x", {"choices": ["a", "b"], "length": 3}, Vector(items=(Choices(options=("a", "b")),) * 3)),
        ("x", {"low": 0.5, "high": 1.0, "length": 2, "rising": True},
         Vector(items=(Range(low=0.5, high=1.0),) * 2, rising=True)),
    ],
)  # fmt: skip
def test_keys_mean_domains(name, given, domain):
    (parameter,) = read({name: given}).parameters
    assert (parameter.name, parameter.domain) == (name, domain)


def test_defaults_conditions_and_relations_are_read():
    space = read(
        {
            "opt": {"choices": ["adam", "sgd"], "default": "sgd"},
            "lr": {"low": 1e-5, "high": 0.1, "default": "1e-4"},
            "momentum": {"low": 0, "high": 0.99, "when": {"opt": "sgd"}},
            "eps": {"low": 1e-9, "high": 1e-6, "when": {"opt": ["adam", "sgd"], "lr_warm": True}},
            "lr_warm": {"choices": [False, True]},
            "a": {"low": 0, "high": 9, "above": "b"},
            "b": {"low": 0, "high": 9, "at_least": "c"},
            "c": {"low": 0, "high": 9, "below": "d"},
            "d": {"low": 0, "high": 9, "at_most": "a"},
            "e": {"above": 0, "high": 9, "at_most": "a"},
        }
    )
    assert space["lr"].default == 1e-4
    assert space.assignments(space.default())["opt"] == "sgd"
    assert space["momentum"].when == (Condition(parameter="opt", values=("sgd",)),)
    assert space["eps"].when == (
        Condition(parameter="opt", values=("adam", "sgd")),
        Condition(parameter="lr_warm", values=(True,)),
    )
    assert space.relations == (
        Relation(upper="a", lower="b"),
        Relation(upper="b", lower="c", kind=">="),
        Relation(upper="d", lower="c"),
        Relation(upper="a", lower="d", kind=">="),
        Relation(upper="a", lower="e", kind=">="),
    )
    assert space["e"].domain == Range(low=1, high=9, integer=True)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ({}, ["space: has no parameter"]),
        ({"x": 3}, ["space.x = 3: is not a mapping"]),
        ({"x": {}}, ["space.x.low: is missing", "space.x.high: is missing"]),
        ({"x": {"low": 0}}, ["space.x.high: is missing; give the largest"]),
        ({"x": {"low": 0, "high": math.inf}}, ["space.x.high = Infinity: is not finite; give the largest"]),
        ({"x": {"low": 0, "high": ".inf"}}, ["space.x.high = \".inf\": is not a number"]),
        ({"x": {"low": 0, "high": "inf"}}, ["space.x.high = \"inf\": is not finite"]),
        ({"x": {"low": math.nan, "high": 1}}, ["space.x.low = NaN: is not finite"]),
        ({"x": {"low": 0, "high": "many"}}, ["space.x.high = \"many\": is not a number"]),
        ({"x": {"low": False, "high": True}}, ["space.x.low = false", "space.x.high = true"]),
        ({"x": {"low": 2, "high": 1}}, ["no value lies between 2 and 1; change its keys"]),
        ({"x": {"low": 0, "high": 1, "log": True}}, ["a log scale needs a low end above 0"]),
        ({"x": {"low": 0, "high": 1, "step": 0.3}}, ["the nearest end below it is 0.9"]),
        ({"x": {"low": 5, "high": 7, "power_of": 2}}, ["there is no power of 2 from 5 to 7"]),
        ({"x": {"low": 5, "high": 7, "power_of": 1}}, ["space.x.power_of = 1: is out of range"]),
        ({"x": {"low": 0, "above": 0, "high": 7}}, ["space.x.above = 0: stands beside low"]),
        ({"x": {"low": 0, "high": 7, "default": 9}}, ["space.x.default = 9: 9 is not from 0 to 7"]),
        ({"x": {**TO_9, "hihg": 7}}, ["space.x.hihg = 7: is an unknown key; did you mean high?"]),
        ({"x": {"choices": []}}, ["space.x.choices = []: is not a list of values"]),
        ({"x": {"choices": "ab"}}, ["space.x.choices = \"ab\": is not a list of values"]),
        ({"x": {"choices": ["a", "a"]}}, ["has an option twice"]),
        ({"x": {"choices": ["a", "b"], "weights": [1]}}, ["has 2 options and 1 weights"]),
        ({"x": {"choices": ["a", "b"], "weights": [1, 0]}}, ["weights must be above 0"]),
        ({"x": {"choices": ["a", "b"], "weights": ["x", 1]}}, ["weights is not a list of finite numbers"]),
        ({"x": {"choices": ["a", "b"], "above": 3}}, ["space.x.above = 3: is not the name of a parameter"]),
        ({"x": {"choices": ["a"], "low": 3}}, ["space.x.low = 3: is an unknown key"]),
        ({"x": {"ordered": [3, 1]}}, ["each above the one before"]),
        ({"x": {**TO_9, "at_least": 3}}, ["space.x.at_least = 3: is not the name of a parameter"]),
        ({"x": {**TO_9, "above": "xx"}}, ["= \"xx\": is no parameter of the space; did you"]),
        ({"x": {**TO_9, "when": {"y": 1}}}, ["space.x.when = \"y\": is no parameter of the space"]),
        ({"x": {**TO_9, "when": "y"}}, ["space.x.when = \"y\": is not a mapping"]),
        ({"x": {**TO_9, "when": {"y": []}}}, ["space.x.when.y = []: names no value"]),
        ({"x": {**TO_9, "length": 0}}, ["space.x.length = 0: is out of range"]),
        # what only the whole space can tell
        ({"x": {**TO_9, "when": {"y": "c"}}, "y": {"choices": ["a"]}}, ["depends on y: 'c' is not one of"]),
        ({"x": {**TO_9, "above": "y"}, "y": {"low": 9, "high": 12}}, ["no value is left where x > y"]),
        ({"x": {**TO_9, "above": "y"}, "y": {"choices": [1]}}, ["y: is not a number"]),
        # all of them at once
        ({"x": {"low": 0}, "y": {"choices": []}, "z": {"low": 1, "high": 0}},
         ["space.x.high: is missing", "space.y.choices", "space.z = "]),
    ],
)  # fmt: skip
def test_faults_name_place_value_and_remedy(data, what):
    found = faults(data)
    assert len(found) == len(what), found
    for fault, expected in zip(found, what, strict=True):
        assert fault.startswith("tune.yaml: space")
        assert expected in fault
        assert "; " in fault
