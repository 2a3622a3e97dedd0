"""A YAML file as a JSON value: numbers as people write them, nothing guessed, every fault told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.faults import Faults
from modelyard.core.yaml_documents import read_yaml_document

_CHARACTERS = st.characters(exclude_categories=["Cs"])
# YAML leaves these unquoted, and here they are numbers.
_TEXT = st.text(_CHARACTERS).filter(lambda text: not re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", text))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)


def read(folder: Path, content: str | bytes, **told: str) -> tuple[object, list[str]]:
    path = folder / "any.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    faults = Faults(file="any.yaml")
    return read_yaml_document(path, faults, **told), [str(fault) for fault in faults.found]


@given(value=values)
def test_what_is_written_is_read(tmp_path_factory, value):
    assert read(tmp_path_factory.getbasetemp(), yaml.safe_dump(value)) == (value, [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2e3", -2e3),
        ("+2.e3", 2e3),
        ("1.5e+3", 1.5e3),
        ("1.5e3", 1.5e3),
        ("3", 3),
        ("0.5", 0.5),
        ("'1e-5'", "1e-5"),
        ("1e-5x", "1e-5x"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("2024-01-02", "2024-01-02"),
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
        ("~", None),
        ("yes", True),
    ],
)
def test_a_scalar_is_what_a_person_means(tmp_path, text, value):
    found, faults = read(tmp_path, f"a: {text}\n")
    assert faults == [] and found == {"a": value} and type(found["a"]) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_as_json_and_python_write_it(tmp_path_factory, number):
    for text in (json.dumps(number), repr(number), f"{number:e}", f"{number:.17E}"):
        assert read(tmp_path_factory.getbasetemp(), f"[{text}]") == ([float(text)], [])


@given(st.binary() | st.text().map(lambda text: text.encode(errors="replace")))
def test_any_bytes_give_a_json_value_or_one_fault(tmp_path_factory, content):
    value, faults = read(tmp_path_factory.getbasetemp(), content)
    assert json.loads(json.dumps(value)) == value or value != value or "NaN" in json.dumps(value)
    assert faults == [] or (len(faults) == 1 and value is None)


def test_aliases_are_written_out_and_keys_are_text(tmp_path):
    value, faults = read(tmp_path, "a: &x {b: 1}\n2: *x\n")
    assert faults == [] and value == {"a": {"b": 1}, "2": {"b": 1}}
    assert value["a"] is not value["2"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("a: 1\na: 2\n", "line 2, column 1: is not YAML (the key 'a' stands twice); correct the file there"),
        ("? [a]\n: 1\n", "line 1, column 3: is not YAML (a key is not a word); correct the file there"),
        ("a: [1\n", "line 2, column 1: is not YAML"),
        ("x: &b [*b]\n", "holds itself, or is nested too deeply"),
        ('x: "\\ud800"\n', "cannot be read as YAML"),
        (b"\xff", "is not UTF-8 text (byte 0); save it as UTF-8"),
    ],
)
def test_what_is_not_yaml_is_told_with_its_place(tmp_path, content, fault):
    value, (found,) = read(tmp_path, content)
    assert value is None and found.startswith(f"any.yaml: {fault}")


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    value, (found,) = read(tmp_path, "\n".join(lines))
    assert value is None and "its aliases stand for more than 2000000 values" in found


def test_a_file_that_cannot_be_read_is_a_fault_with_the_callers_remedy(tmp_path):
    for path, told, remedy in (
        (tmp_path / "none.yaml", {}, "does not exist; give the path of the file"),
        (tmp_path / "none.yaml", {"absent": "make one"}, "does not exist; make one"),
        (tmp_path, {}, "cannot be read (Is a directory); give a file that you may read"),
    ):
        faults = Faults(file="f")
        assert read_yaml_document(path, faults, **told) is None
        assert [str(fault) for fault in faults.found] == [f"f: {remedy}"]
