"""Spaces of TAO schemas: every kind of leaf and every rule of the format, ranges of users, refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError
from modelyard.tuning.spaces.domains import Choices, Subset, Vector, Weighted
from modelyard.tuning.spaces.scalars import Ordered, Range
from modelyard.tuning.spaces.space import Relation
from modelyard.tuning.tao.schema import SchemaRules, read_tao_space

INF = float("inf")
#: A folder of real schemas, which are not part of the project.
FOLDER = os.environ.get("MODELYARD_TAO_SCHEMAS")
REAL = sorted(Path(FOLDER).glob("*.schema.json")) if FOLDER else []


def nested(flat):
    """Leaves by dotted name as the properties and the default of a schema."""
    properties, default = {}, {}
    for name, leaf in flat.items():
        *groups, last = name.split(".")
        node, values = properties, default
        for group in groups:
            node = node.setdefault(group, {"type": "object", "properties": {}})["properties"]
            values = values.setdefault(group, {})
        node[last] = leaf
        if "default" in leaf:
            values[last] = leaf["default"]
    return {"type": "object", "properties": properties, "default": default}


def schema(leaf=None, /, name="x", **more):
    """A schema of one leaf that is in the search, and others that are not unless they say so."""
    leaves = {name: {"automl_enabled": True, **leaf}} if leaf is not None else {}
    return nested({**leaves, **{key.replace("__", "."): value for key, value in more.items()}})


def read(leaf, name="x", **options):
    return read_tao_space(schema(leaf, name=name), **options)


def domain(leaf, name="x", **options):
    (parameter,) = read(leaf, name, **options).space.parameters
    return parameter.domain


def faults(given, *arguments, **options):
    with pytest.raises(DocumentError) as caught:
        read_tao_space(given, *arguments, **options)
    return [str(fault) for fault in caught.value.faults]


def ints(low, high):
    return {"type": "int", "minimum": low, "maximum": high}


def reals(low, high):
    return {"type": "float", "minimum": low, "maximum": high}


def lists(kind, default, low, high):
    return {"type": kind, "default": default, "minimum": low, "maximum": high}


def whole(low, high, **fields):
    return Range(low=low, high=high, integer=True, **fields)


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        (reals(-1.0, 2.0), Range(low=-1.0, high=2.0)),
        ({"type": "number", "minimum": 0, "maximum": 1}, Range(low=0, high=1)),
        ({**reals(0.0, 1.0), "math_cond": "> 0.0"}, Range(low=1e-6, high=1.0)),
        ({**reals(0.0, 1.0), "math_cond": ">0"}, Range(low=1e-6, high=1.0)),
        ({**reals(0.0, 1.0), "math_cond": ">= 0.0"}, Range(low=0.0, high=1.0)),
        ({**reals(0.5, 1.0), "math_cond": "> 0.0"}, Range(low=0.5, high=1.0)),
        ({"type": "float", "math_cond": "> 0.0 <= 1.0"}, Range(low=1e-6, high=1.0)),
        ({**reals(0.0, 4.0), "math_cond": "< 2"}, Range(low=0.0, high=2 - 2e-6)),
        ({**reals(0.0, 9.0), "math_cond": ">= 1"}, Range(low=1.0, high=9.0)),
        (ints(1, 12), whole(1, 12)),
        ({"type": "integer", "minimum": 1.0, "maximum": 12.5}, whole(1, 12)),
        ({**ints(0, 12), "math_cond": "> 0.0"}, whole(1, 12)),
        ({**ints(0, 12), "math_cond": ">0"}, whole(1, 12)),
        ({**ints(0, 12), "math_cond": "< 12"}, whole(0, 11)),
        ({**ints(-2, 2), "math_cond": "!= 0"}, Ordered(options=(-2, -1, 1, 2))),
        ({**ints(1, 12), "math_cond": "!= 0"}, whole(1, 12)),
        ({**ints(1, 40), "math_cond": "^ 2"}, Ordered(options=(1, 2, 4, 8, 16, 32))),
        ({**ints(3, 90), "math_cond": "^ 3"}, Ordered(options=(3, 9, 27, 81), first=1)),
        ({**ints(60, 130), "math_cond": "/ 8"}, whole(64, 128, step=8)),
        ({"type": "bool", "default": True}, Choices(options=(False, True))),
        ({"type": "boolean"}, Choices(options=(False, True))),
        ({"type": "categorical", "enum": ["a", "b"]}, Choices(options=("a", "b"))),
        ({"type": "string", "enum": ["a", "b"]}, Choices(options=("a", "b"))),
        ({"type": "ordered", "enum": ["s", "m", "l"]}, Choices(options=("s", "m", "l"))),
        ({"type": "categorical", "enum": ["a", "b"], "option_weights": [0.1, 0.4]},
         Weighted(options=("a", "b"), weights=(0.1, 0.4))),
        ({"type": "categorical", "enum": ["a", "b", "c"], "option_weights": [1, 0, 2]},
         Weighted(options=("a", "c"), weights=(1, 2))),
        ({"type": "ordered_int", "enum": [512, 256, 768]}, Ordered(options=(256, 512, 768))),
        ({"type": "int", "enum": [1, 2, 8]}, Ordered(options=(1, 2, 8))),
        (lists("list_2", [0.9, 0.99], [0.8, 0.9], [0.95, 0.999]),
         Vector(items=(Range(low=0.8, high=0.95), Range(low=0.9, high=0.999)))),
        (lists("list", [3, 5, 7], 1, 9), Vector(items=(whole(1, 9),) * 3)),
        (lists("list_3", [15, 15], 3, 31), Vector(items=(whole(3, 31),) * 2)),
        (lists("list_1_backbone", [-1], -1, 8), Vector(items=(whole(-1, 8),))),
        ({"type": "subset_list", "default": ["q"], "enum": ["q", "k"]}, Subset(options=("q", "k"))),
        ({"type": "subset_list", "default": [], "enum": ["q", "k"]}, Subset(options=("q", "k"), empty=True)),
        ({"type": "optional_list", "default": [], "enum": ["q"]}, Subset(options=("q",), empty=True)),
        ({"anyOf": [{"type": "null"}, {"type": "number", "minimum": 1, "maximum": 4}]}, Range(low=1, high=4)),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}], "minimum": 0, "maximum": 4}, whole(0, 4)),
        ({"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}]}, Choices(options=("a", "b"))),
    ],
)  # fmt: skip
def test_leaves_mean_domains(leaf, expected):
    assert domain(leaf) == expected


@pytest.mark.parametrize(
    ("name", "leaf", "expected"),
    [
        ("optim.lr", {"default": 2e-4, "minimum": 0.0, "maximum": 1.0}, Range(low=2e-6, high=1.0, log=True)),
        ("lr", {"default": 2e-4, "minimum": 0.0, "maximum": 1.0, "math_cond": "> 0.0"},
         Range(low=2e-6, high=1.0, log=True)),
        ("lr", {"default": 1e-4, "minimum": 1e-6, "maximum": 1e-3}, Range(low=1e-6, high=1e-3, log=True)),
        # no log scale: a default near the upper end, or at 0; too narrow; a name that tells of no scale
        ("ema_decay", {"default": 0.999, "minimum": 0.0, "maximum": 1.0}, Range(low=0.0, high=1.0)),
        ("weight_decay", {"default": 0.0, "minimum": 0.0, "maximum": 0.01}, Range(low=0.0, high=0.01)),
        ("lr", {"default": 2e-4, "minimum": 1e-4, "maximum": 5e-4}, Range(low=1e-4, high=5e-4)),
        ("dropout", {"default": 0.01, "minimum": 0.0, "maximum": 1.0}, Range(low=0.0, high=1.0)),
        ("lr", {"default": 0.0, "minimum": -1.0, "maximum": 1.0}, Range(low=-1.0, high=1.0)),
    ],
)  # fmt: skip
def test_scales_are_told_by_names(name, leaf, expected):
    leaf = {"type": "float", **leaf}
    assert domain(leaf, name) == expected
    as_told = read(leaf, name)
    assert any("the default / 100" in note for note in as_told.notes) == (
        expected.log and leaf["minimum"] == 0
    )
    linear = domain(leaf, name, custom={name: {"log": False}})
    assert not linear.log and linear.high == expected.high


def test_log_can_be_asked_for_and_is_refused_where_it_cannot_be():
    leaf = {"type": "float", "default": 0.5, "minimum": 0.1, "maximum": 0.9}
    assert domain(leaf, custom={"x": {"log": True}}) == Range(low=0.1, high=0.9, log=True)
    whole_leaf = {"type": "int", "default": 8, "minimum": 1, "maximum": 512}
    assert domain(whole_leaf, custom={"x": {"log": True}}) == whole(1, 512, log=True)
    (fault,) = faults(
        schema({"type": "float", "default": 0.0, "minimum": 0.0, "maximum": 1.0}), custom={"x": {"log": True}}
    )
    assert "x: begins at 0, which a log scale cannot hold; give a valid_min above 0" in fault


@pytest.mark.parametrize(
    ("leaf", "what"),
    [
        (reals(0.0, INF), "has no upper end; give custom_param_ranges {\"x\":"),
        (reals(-INF, 1.0), "has no lower end"),
        ({"type": "float"}, "has no lower and upper end"),
        (ints(1, INF), "has no upper end"),
        (reals(float("nan"), 1.0), "has no lower end"),
        (reals(2.0, 1.0), "no value lies between 2 and 1"),
        ({**ints(5, 7), "math_cond": "^ 2"}, "there is no power of 2 from 5 to 7"),
        ({**ints(9, 15), "math_cond": "/ 8"}, "there is no multiple of 8"),
        ({**ints(9, 15), "math_cond": "/ 2.5"}, "math_cond '/ 2.5'; correct"),
        ({**ints(0, 9), "math_cond": "/ 2", "depends_on": "epoch"}, "computed from epoch"),
        ({**ints(-9000, 9000), "math_cond": "!= 0"}, "must not be 0"),
        ({"type": "string"}, "is a string without options; give custom_param_ranges {\"x\": {\"valid_op"),
        ({"type": "categorical"}, "is a categorical without options"),
        ({"type": "ordered_int"}, "is a ordered_int without options"),
        ({"type": "subset_list"}, "is a subset_list without options"),
        ({"type": "optional_list"}, "is a optional_list without options"),
        ({"type": "collection"}, "is a collection, which has no values to try; leave it out"),
        ({}, "is a leaf without a type"),
        ({"type": "list", "default": [1, 2]}, "is a list without bounds"),
        (lists("list_2", [1, 2], [1, 2, 3], 9), "needs valid_min and valid_max"),
        (lists("list_2", [1, 2], [1, "a"], 9), "not finite numbers"),
        ({"type": "categorical", "enum": ["a", "b"], "option_weights": [1]}, "2 options and 1 option_w"),
        ({"type": "categorical", "enum": ["a", "b"], "option_weights": [1, "b"]}, "are not finite numbers"),
        ({"type": "categorical", "enum": ["a", "b"], "option_weights": [1, -1]}, "weights must be above 0"),
    ],
)  # fmt: skip
def test_leaves_that_cannot_be_searched_are_refused(leaf, what):
    """Alone, or named by the user, it is a fault; beside others that the schema chose, a note."""
    (alone,) = faults(schema(leaf))
    other = {"type": "bool", "automl_enabled": True}
    (named,) = faults(schema(leaf, y=other), ["x", "y"])
    for fault in (alone, named):
        assert fault.startswith("train.schema.json: x: ") and what in fault
    beside = read_tao_space(schema(leaf, y=other))
    assert [p.name for p in beside.space.parameters] == ["y"]
    assert len(beside.notes) == 1 and what.split(";")[0] in beside.notes[0]


def test_open_ends_can_be_closed_around_the_default():
    rules = SchemaRules(open_ends=10.0)
    rate = {"type": "float", "default": 1e-3, "minimum": 0.0, "maximum": INF}
    closed = read(rate, "optim.lr", rules=rules)
    assert closed.space["optim.lr"].domain == Range(low=1e-5, high=1e-2, log=True)
    assert any("names no upper end; searched from 0 to 0.01" in note for note in closed.notes)
    assert domain({"type": "int", "default": 4, "minimum": 1}, rules=rules) == whole(1, 40)
    assert domain({"type": "int", "default": 4}, rules=rules) == whole(1, 40)
    # ten times a momentum is nothing, nor are ten times 0
    for leaf in (
        {"type": "float", "default": 0.9, "minimum": 0.0},
        {"type": "int", "default": 0, "minimum": 0},
    ):
        assert "has no upper end" in faults(schema(leaf, name="momentum"), rules=rules)[0]


def test_steps_of_a_schedule_lie_within_the_training():
    leaf = {"type": "list_2", "default": [40, 70]}
    made = read_tao_space(
        schema(leaf, name="train.lr_steps", train__num_epochs={"type": "int", "default": 120})
    )
    assert made.space["train.lr_steps"].domain == Vector(items=(whole(1, 120),) * 2, rising=True)
    assert made.space.assignments(made.space.default()) == {"train.lr_steps": [40, 70]}
    shorter = read_tao_space(
        schema(leaf, name="train.lr_steps", train__num_epochs={"type": "int", "default": 120}),
        overrides={"train.num_epochs": 50},
    )
    assert shorter.space.assignments(shorter.space.default()) == {"train.lr_steps": [40, 50]}
    assert any("the default [40, 70] is not among the values" in note for note in shorter.notes)


CROPS = {
    "crop_max": {"type": "int", "default": 600, "minimum": 32, "maximum": 1333, "automl_enabled": True,
                 "math_cond": "> depends_on", "depends_on": "crop_min"},
    "crop_min": {"type": "int", "default": 384, "minimum": 32, "maximum": 1024, "automl_enabled": True,
                 "parent_param": "TRUE"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "depends_on", "upper", "kind"),
    [
        ("> depends_on", "crop_min", "crop_max", ">"), (">= depends_on", "crop_min", "crop_max", ">="),
        ("< depends_on", "crop_min", "crop_min", ">"), ("<= depends_on", "crop_min", "crop_min", ">="),
        ("", "> crop_min", "crop_max", ">"), ("", "<= crop_min", "crop_min", ">="),
    ],
)  # fmt: skip
def test_dependence_is_a_relation(condition, depends_on, upper, kind):
    leaf = {**CROPS["crop_max"], "math_cond": condition, "depends_on": depends_on}
    made = read_tao_space(nested({**CROPS, "crop_max": leaf}))
    lower = "crop_min" if upper == "crop_max" else "crop_max"
    assert made.space.relations == (Relation(upper=upper, lower=lower, kind=kind),)
    assert [p.name for p in made.space.parameters] == ["crop_max", "crop_min"]


@given(st.integers(32, 1333), st.integers(32, 1024))
def test_relations_of_schemas_hold(upper, lower):
    space = read_tao_space(nested(CROPS)).space
    values = space.assignments({"crop_max": upper, "crop_min": lower})
    assert values["crop_max"] > values["crop_min"]


def test_dependence_on_what_is_not_searched_bounds_the_range():
    made = read_tao_space(nested(CROPS), ["crop_max"], overrides={"crop_min": 512})
    assert made.space["crop_max"].domain == whole(513, 1333)
    assert made.notes == ("crop_max: kept > crop_min = 512, which is not searched",)
    # depends_on without a comparison says nothing that can be kept
    free = read_tao_space(nested({**CROPS, "crop_max": {**CROPS["crop_max"], "math_cond": ""}}))
    assert free.space.relations == ()


def test_dependence_that_cannot_be_is_a_fault():
    circle = {
        **CROPS,
        "crop_min": {**CROPS["crop_min"], "math_cond": "> depends_on", "depends_on": "crop_max"},
    }
    assert "in a circle" in faults(nested(circle))[0]
    narrow = {"crop_max": {"valid_max": 40}, "crop_min": {"valid_min": 40}}
    assert "no value is left where crop_max > crop_min" in faults(nested(CROPS), custom=narrow)[0]


def test_what_is_searched_follows_the_schema_or_the_user():
    leaf = {"type": "bool", "default": False}
    given_one = nested(
        {
            "a": {**leaf, "automl_enabled": True},
            "b": {**leaf, "automl_enabled": "TRUE"},
            "c": leaf,
            "d": {**leaf, "automl_enabled": False},
            "train.e": {**leaf, "automl_enabled": True},
            "distill.f": {**leaf, "automl_enabled": True},
        }
    )

    def searched(*arguments, **more):
        return [p.name for p in read_tao_space({**given_one, **more}, *arguments).space.parameters]

    assert searched() == ["a", "b", "train.e"]
    assert searched(automl_default_parameters=["c", "d"]) == ["a", "b", "c", "train.e"]
    assert searched(x_tao_schema={"action": "distill"}) == ["a", "b", "train.e", "distill.f"]
    assert searched(x_tao_schema={"action": "quantize"}) == ["a", "b"]
    assert searched(["distill.f", "c"]) == ["distill.f", "c"]
    assert "distill.f" in read_tao_space(given_one).notes[0]
    assert faults(given_one, ["d", "train.f"]) == [
        "train.schema.json: d: is kept out of searches by the schema (automl_enabled is false); "
        "leave it out, or set override_automl_disabled_params",
        "train.schema.json: train.f: is no parameter of the schema; did you mean train.e?",
    ]
    allowed = read_tao_space(given_one, ["d"], rules=SchemaRules(allow_disabled=True))
    assert [p.name for p in allowed.space.parameters] == ["d"]
    assert "enables no parameter" in faults(nested({"c": leaf}))[0]


RATE = {"type": "float", "default": 1e-3, "minimum": 1e-6, "maximum": 1e-1}
WORD = {"type": "categorical", "default": "a", "enum": ["a", "b", "c"], "option_weights": [1, 2, 3]}


@pytest.mark.parametrize(
    ("leaf", "custom", "expected"),
    [
        (RATE, {"valid_min": 1e-4}, Range(low=1e-4, high=1e-1)),
        (RATE, {"valid_max": 1e-2, "valid_options": None}, Range(low=1e-6, high=1e-2)),
        ({**RATE, "maximum": INF}, {"valid_max": 5.0}, Range(low=1e-6, high=5.0)),
        ({**RATE, "minimum": 0.0, "math_cond": "> 0.0"}, {"valid_min": 0.0}, Range(low=1e-7, high=0.1)),
        (WORD, {"valid_options": ["c", "a"]}, Weighted(options=("c", "a"), weights=(3, 1))),
        (WORD, {"valid_options": "a, b"}, Weighted(options=("a", "b"), weights=(1, 2))),
        (WORD, {"option_weights": [3, 1, 1]}, Weighted(options=("a", "b", "c"), weights=(3, 1, 1))),
        ({"type": "string", "default": "a"}, {"valid_options": ["a", "z"]}, Choices(options=("a", "z"))),
        (RATE, {"valid_min": [1e-6, 1e-5], "valid_max": [1e-3, 1e-2]},
         Vector(items=(Range(low=1e-6, high=1e-3), Range(low=1e-5, high=1e-2)))),
        (RATE, {"valid_min": [1e-6], "valid_max": [1e-3, 1e-2], "disable_list": True},
         Range(low=1e-6, high=1e-3)),
        ({"type": "list", "default": [1, 2]}, {"valid_min": 0, "valid_max": 5},
         Vector(items=(whole(0, 5),) * 2)),
    ],
)  # fmt: skip
def test_custom_ranges_narrow_the_schema(leaf, custom, expected):
    assert domain(leaf, custom={"x": custom}) == expected


@pytest.mark.parametrize(
    ("leaf", "custom", "what"),
    [
        (RATE, {"x": {"valid_min": 1e-9}}, "x.valid_min = 1e-09: lies beyond the schema's 1e-06; stay"),
        (RATE, {"x": {"valid_max": 1.0}}, "x.valid_max = 1.0: lies beyond the schema's 0.1"),
        (RATE, {"x": {"valid_max": [0.01, 1.0], "valid_min": 1e-6}}, "x.valid_max = [0.01, 1.0]: lies"),
        (RATE, {"x": {"valid_max": INF}}, "x.valid_max = Infinity: is not a finite number"),
        (RATE, {"x": {"valid_max": "wide"}}, "x.valid_max = \"wide\": is not a finite number"),
        (RATE, {"x": {"valid_min": 0.05, "valid_max": 0.01}}, "x: no value lies between 0.05 and 0.01"),
        (RATE, {"x": {"valid_maxx": 0.01}}, "x.valid_maxx = 0.01: is an unknown key; did you mean"),
        (RATE, {"x": 3}, "x = 3: is not a mapping"),
        (RATE, {"xx": {"valid_min": 1.0}}, "is no parameter of the schema; did you mean x?"),
        (WORD, {"x": {"valid_options": ["a", "z"]}}, "x.valid_options = [\"z\"]: holds options that"),
        (WORD, {"x": {"valid_options": 3}}, "x.valid_options = 3: is not a list"),
        (WORD, {"x": {"valid_options": ["a"], "option_weights": [1, 2]}}, "1 options and 2 option_weights"),
    ],
)  # fmt: skip
def test_custom_ranges_that_cannot_be_are_faults(leaf, custom, what):
    (fault,) = faults(schema(leaf), custom=custom)
    assert what in fault and "; " in fault


def test_wider_ranges_can_be_allowed():
    wider = {"x": {"valid_min": 1e-9, "valid_max": 1.0}}
    assert domain(RATE, custom=wider, rules=SchemaRules(allow_wider=True)) == Range(low=1e-9, high=1.0)


def test_a_custom_range_of_what_is_not_searched_is_told():
    made = read_tao_space(schema(RATE, y={"type": "bool"}), custom={"y": {"valid_options": [True]}})
    assert made.notes == ("y: has a custom range, and is not searched; name it to search it",)


def test_overrides_are_defaults_and_reach_the_specification():
    given_one = nested({
        "optim.lr": {**RATE, "automl_enabled": True}, "layers": {"type": "list", "default": [{"width": 1}]},
        "name": {"type": "string", "default": "x"},
    })  # fmt: skip
    made = read_tao_space(
        given_one, overrides={"optim.lr": 0.01, "layers[0].width": 2, "new": {"deep.key": 3}, "name": None}
    )
    assert made.default_specs == {
        "optim": {"lr": 0.01}, "layers": [{"width": 2}], "new": {"deep": {"key": 3}}, "name": None,
    }  # fmt: skip
    assert made.space.assignments(made.space.default()) == {"optim.lr": 0.01}
    assert given_one["default"]["optim"]["lr"] == 1e-3  # the schema itself stays
    outside = read_tao_space(given_one, overrides={"optim.lr": 0.5})
    assert outside.space.assignments(outside.space.default()) == {"optim.lr": 0.1}
    assert outside.notes == ("optim.lr: the default 0.5 is not among the values; the search begins at 0.1",)
    for key in ("layers[3].width", "name.deep", "layers.width", ""):
        assert "leads to no place in the specification" in faults(given_one, overrides={key: 1})[0]


def test_files_with_infinity_are_read(tmp_path):
    path = tmp_path / "train.schema.json"
    leaf = {"type": "float", "default": 1e-3, "minimum": 0.0, "maximum": INF}
    path.write_text(json.dumps(schema(leaf, y={"type": "bool", "automl_enabled": True})))
    assert "Infinity" in path.read_text()
    made = read_tao_space(path)
    assert [p.name for p in made.space.parameters] == ["y"]
    assert "x: not searched, since it has no upper end" in made.notes[0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "does not exist"), ("{", "is not JSON"), ("[1]", "properties: is missing"),
        ("{}", "properties: is missing"), ('{"properties": 3}', "properties: is missing"),
    ],
)  # fmt: skip
def test_files_that_are_no_schemas_are_refused(tmp_path, text, what):
    path = tmp_path / "train.schema.json"
    if text is not None:
        path.write_text(text)
    (fault,) = faults(path)
    assert fault.startswith(str(path)) and what in fault


# ---- real schemas, where a folder of them is given ----


def check_samples(made, draw):
    """200 points of a space, each valid after its repair, and leading back to itself."""
    space = made.space
    for _ in range(200):
        point = space.repair({d.name: draw(d) for d in space.dimensions})
        assert space.repair(point) == point
        values = space.assignments(point)
        json.dumps(values, allow_nan=False)
        assert space.assignments(space.point(values)) == values
        assert all(relation.holds(values) for relation in space.relations)
        for dimension in space.dimensions:
            if dimension.kind != "choice":
                assert dimension.low <= point[dimension.name] <= dimension.high


@pytest.fixture
def draw():
    """Draws coordinates as a random search would."""
    import math
    import random

    chance = random.Random(7)

    def one(dimension):
        if dimension.kind == "choice":
            return chance.choice(dimension.choices)
        if dimension.kind == "int":
            return chance.randint(int(dimension.low), int(dimension.high))
        if dimension.log:
            return math.exp(chance.uniform(math.log(dimension.low), math.log(dimension.high)))
        return chance.uniform(dimension.low, dimension.high)

    return one


def check_bounds(path, made):
    """Every number tried lies within what the schema itself says, read here in another way."""
    document = json.loads(path.read_text())
    for parameter in made.space.parameters:
        leaf = document
        for key in parameter.name.split("."):
            leaf = leaf["properties"][key]
        for dimension in parameter.dimensions:
            if dimension.kind == "choice" or leaf.get("enum") or "^" in str(leaf.get("math_cond")):
                continue
            low, high = leaf.get("minimum", -INF), leaf.get("maximum", INF)
            if not isinstance(low, list):
                assert low <= dimension.low <= dimension.high <= high, parameter.name
            if str(leaf.get("math_cond", "")).replace(" ", "") in (">0", ">0.0"):
                assert dimension.low > 0


@pytest.mark.skipif(not REAL, reason="peer: set MODELYARD_TAO_SCHEMAS to a folder of TAO schemas")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name.split(".")[0])
def test_real_schemas_load_and_stay_valid(path, draw):
    """As they are, or refused since every end is open; and all of them with their ends closed."""
    enabled = set(json.loads(path.read_text())["automl_default_parameters"])
    try:
        made = read_tao_space(path)
    except DocumentError as error:
        assert {fault.key for fault in error.faults} == enabled
        assert all("has no upper end" in fault.problem for fault in error.faults)
    else:
        refused = {note.split(":")[0] for note in made.notes if "not searched, since it has no upper" in note}
        assert refused | {p.name for p in made.space.parameters} == enabled
        check_samples(made, draw)
        check_bounds(path, made)
    closed = read_tao_space(path, rules=SchemaRules(open_ends=10.0))
    assert {p.name for p in closed.space.parameters} >= enabled - {
        "train.optim.momentum", "model.margin", "train.grad_clip", "dataset.window_size",
        "train.optimizer.args.weight_decay",
    }  # fmt: skip
    check_samples(closed, draw)
    check_bounds(path, closed)
