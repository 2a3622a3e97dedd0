"""Reading a document: usable values always, every fault noted, nothing else raised."""

from __future__ import annotations

import datetime
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError, Fault
from modelyard.core.faults import Faults, Section, duration_s

# What JSON and YAML can put anywhere, the awkward included.
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=6)
    | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.dates(), inner, max_size=3)
    ),
    max_leaves=6,
)


def section(**data: object) -> Section:
    return Section(data, faults=Faults(file="yard.yaml"))


def problems(of: Section) -> list[tuple[str, str]]:
    return [(fault.key, fault.problem) for fault in of.faults.found]


def test_a_fault_names_file_key_value_problem_and_remedy():
    faults = Faults(file="yard.yaml")
    faults.add("models[2].group", "onlin", "is not known", "use one of online, offline")
    assert str(faults.found[0]) == (
        'yard.yaml: models[2].group = "onlin": is not known; use one of online, offline'
    )
    faults.add("", None, "is empty", "write something")
    assert str(faults.found[1]) == "yard.yaml: is empty; write something"


def test_long_values_are_shortened():
    faults = Faults(file="f")
    faults.add("k", "x" * 1000, "is long", "shorten it")
    assert len(faults.found[0].value) == 120
    assert faults.found[0].value.endswith("...")


def test_all_faults_are_raised_together_and_only_if_there_are_any():
    faults = Faults(file="f")
    faults.raise_if_any()
    faults.add("a", 1, "p", "r")
    faults.add("b", 2, "p", "r", here=True)
    with pytest.raises(DocumentError) as caught:
        faults.raise_if_any()
    assert [(f.key, f.here) for f in caught.value.faults] == [("a", False), ("b", True)]


@given(anything)
def test_any_value_can_be_shown(value):
    faults = Faults(file="f")
    faults.add("k", value, "is wrong", "mend it")
    assert isinstance(faults.found[0], Fault)


READERS = {
    "text": (lambda s: s.text("k"), lambda v: isinstance(v, str)),
    "text with default": (lambda s: s.text("k", "d"), lambda v: isinstance(v, str) and bool(v)),
    "optional_text": (lambda s: s.optional_text("k"), lambda v: v is None or isinstance(v, str)),
    "flag": (lambda s: s.flag("k", default=True), lambda v: isinstance(v, bool)),
    "integer": (lambda s: s.integer("k", 3, low=1, high=9), lambda v: type(v) is int and 1 <= v <= 9),
    "required integer": (lambda s: s.integer("k", None, low=2), lambda v: type(v) is int and v >= 2),
    "number": (
        lambda s: s.number("k", 0.5, above=0.0, below=1.0),
        lambda v: isinstance(v, float) and 0 < v < 1,
    ),
    "unbounded number": (
        lambda s: s.number("k", 0.5, above=0.0),
        lambda v: isinstance(v, float) and math.isfinite(v) and v > 0,
    ),
    "duration": (lambda s: s.duration("k", "30min", most_s=3600.0), lambda v: 0 < v <= 3600.0),
    "choice": (lambda s: s.choice("k", "a", ("a", "b")), lambda v: v in ("a", "b")),
    "texts": (
        lambda s: s.texts("k"),
        lambda v: isinstance(v, tuple) and all(isinstance(x, str) and x for x in v),
    ),
    "scalars": (
        lambda s: s.scalars("k"),
        lambda v: all(isinstance(k, str) and isinstance(x, str | int | float) for k, x in v.items()),
    ),
    "sections": (lambda s: s.sections("k"), lambda v: all(isinstance(x, Section) for x in v)),
    "section": (lambda s: s.section("k"), lambda v: isinstance(v, Section)),
}


@pytest.mark.parametrize("reader", READERS)
@given(value=anything)
def test_every_reader_gives_a_usable_value_whatever_stands_there(reader, value):
    read, usable = READERS[reader]
    assert usable(read(section(k=value)))


@pytest.mark.parametrize("reader", [name for name in READERS if not name.startswith("required")])
def test_absent_keys_are_no_fault_unless_required(reader):
    read, usable = READERS[reader]
    empty = section()
    assert usable(read(empty))
    assert problems(empty) == ([("k", "is missing")] if reader == "text" else [])


@pytest.mark.parametrize(
    ("read", "value", "problem"),
    [
        (lambda s: s.text("k"), "  ", "is not a non-empty string"),
        (lambda s: s.text("k"), 3, "is not a non-empty string"),
        (lambda s: s.flag("k", default=True), "false", "is not a boolean"),
        (lambda s: s.flag("k", default=True), 1, "is not a boolean"),
        (lambda s: s.integer("k", 1, low=0), True, "is not an integer"),
        (lambda s: s.integer("k", 1, low=0), 2.0, "is not an integer"),
        (lambda s: s.integer("k", 1, low=0), -1, "is out of range"),
        (lambda s: s.integer("k", 1, low=0, high=5), 6, "is out of range"),
        (lambda s: s.number("k", 0.5, above=0, below=1), 1, "is out of range"),
        (lambda s: s.number("k", 0.5, above=0, below=1), 0, "is out of range"),
        (lambda s: s.number("k", 0.5, above=0), math.nan, "is out of range"),
        (lambda s: s.number("k", 0.5, above=0), math.inf, "is out of range"),
        (lambda s: s.number("k", 0.5, above=0), 10**400, "is out of range"),
        (lambda s: s.number("k", 0.5, above=0), True, "is not a number"),
        (lambda s: s.duration("k", "1h"), "90", "is not a duration"),
        (lambda s: s.duration("k", "1h"), "1h30min", "is not a duration"),
        (lambda s: s.duration("k", "1h"), "-1h", "is not a duration"),
        (lambda s: s.duration("k", "1h"), "0s", "is not a duration"),
        (lambda s: s.duration("k", "1h", most_s=60), "61s", "is not a duration"),
        (lambda s: s.duration("k", "1h"), "9" * 400 + "s", "is not a duration"),
        (lambda s: s.duration("k", "1h"), 90, "is not a non-empty string"),
        (lambda s: s.choice("k", "a", ["a"]), "A", "is not known"),
        (lambda s: s.texts("k"), ["a", ""], "is not a list of strings"),
        (lambda s: s.texts("k"), "a", "is not a list of strings"),
        (lambda s: s.scalars("k"), [1], "is not a mapping"),
        (lambda s: s.sections("k"), {}, "is not a list"),
        (lambda s: s.section("k"), 3, "is not a mapping of keys to values"),
    ],
)
def test_what_is_wrong_is_noted_at_its_key(read, value, problem):
    of = section(k=value)
    read(of)
    assert problems(of) == [("k", problem)]


def test_a_scalar_that_is_none_is_noted_at_its_own_key():
    of = section(context={"good": 1, "bad": [2]})
    assert of.scalars("context") == {"good": 1}
    assert problems(of) == [("context.bad", "is not a scalar")]


def test_null_means_the_default():
    of = section(flag=None, number=None, text=None)
    assert of.flag("flag", default=True) is True
    assert of.number("number", 2.5, above=0) == 2.5
    assert of.text("text", "here") == "here"
    assert problems(of) == []
    assert not of.has("text")


def test_paths_lead_through_lists_and_mappings():
    of = section(models=[{}, {"limits": {"cpus": "two"}}])
    of.sections("models")[1].section("limits").integer("cpus", 1, low=1)
    assert [fault.key for fault in of.faults.found] == ["models[1].limits.cpus"]


def test_unknown_keys_are_noted_with_the_nearest_known_name():
    of = section(horizn=24, beta=0.7)
    of.integer("horizon", 1, low=1)
    of.number("beta", 0.5, above=0, below=1)
    of.close()
    (fault,) = of.faults.found
    assert (fault.key, fault.problem, fault.remedy) == (
        "horizn",
        "is an unknown key",
        "did you mean horizon?",
    )


def test_without_a_near_name_the_known_ones_are_listed():
    of = section(zzzz=1)
    of.text("name", "n")
    of.raw("beta")
    of.close()
    assert of.faults.found[0].remedy == "known keys: beta, name"


def test_keys_that_are_no_strings_are_unknown_keys():
    of = Section({1: "x", datetime.date(2024, 1, 1): "y"}, faults=Faults(file="f"))
    of.close()
    assert [fault.key for fault in of.faults.found] == ["1", "2024-01-01"]


def test_the_rest_is_what_nobody_read():
    of = section(a=1, b=2, c=3)
    of.raw("a")
    assert of.rest() == {"b": 2, "c": 3}
    of.close()
    assert problems(of) == []


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9)), st.sets(st.sampled_from("abcdef")))
def test_exactly_the_unread_keys_are_unknown(data, read):
    of = section(**data)
    for name in read:
        of.raw(name)
    of.close()
    assert {fault.key for fault in of.faults.found} == set(data) - read


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0), ("1.5h", 5400.0), ("30 min", 1800.0), (" 2d ", 172800.0), ("0.02s", 0.02),
        ("", 0.0), ("5", 0.0), ("h", 0.0), ("5m", 0.0), ("5 hours", 0.0), ("1e3s", 0.0), ("nan s", 0.0),
    ],
)  # fmt: skip
def test_a_duration_is_a_number_and_its_unit(text, seconds):
    assert duration_s(text) == seconds


def test_a_duration_falls_back_to_its_default_and_may_be_required():
    of = section(k="soon")
    assert of.duration("k", "30min") == 1800.0
    assert [str(fault) for fault in of.faults.found] == [
        'yard.yaml: k = "soon": is not a duration; write a number and s, min, h or d, such as 30min'
    ]
    empty = section()
    assert empty.duration("k", "2h") == 7200.0 and problems(empty) == []
    assert empty.duration("k", None) == 0.0 and problems(empty) == [("k", "is missing")]
