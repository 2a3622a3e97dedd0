"""Opening a JSON document: its value, or one fault that says what is the matter with the file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.faults import Faults, read_json_document


def opened(path: Path) -> tuple[object, list[str]]:
    faults = Faults(file="spec.json")
    value = read_json_document(path, faults)
    return value, [str(fault) for fault in faults.found]


def written(folder: Path, content: bytes) -> Path:
    path = folder / "spec.json"
    path.write_bytes(content)
    return path


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_every_json_value_comes_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = written(tmp_path_factory.getbasetemp(), json.dumps(value, ensure_ascii=False).encode())
    assert opened(path) == (value, [])


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert opened(written(tmp_path, b'\xef\xbb\xbf{"a": 1}')) == ({"a": 1}, [])


def test_nan_and_infinity_are_numbers(tmp_path: Path) -> None:
    value, faults = opened(written(tmp_path, b"[NaN, -Infinity]"))
    assert isinstance(value, list)
    assert math.isnan(value[0]) and value[1] == -math.inf and faults == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "spec.json: line 1, column 1: is not JSON (Expecting value); correct the file there"),
        (
            b'{"a": 1,\n "b": }',
            "spec.json: line 2, column 7: is not JSON (Expecting value); correct the file there",
        ),
        (b'{"a": 1} x', "spec.json: line 1, column 10: is not JSON (Extra data); correct the file there"),
        (b'{"a": "\xff"}', "spec.json: is not UTF-8 text (byte 7); save it as UTF-8"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(tmp_path: Path, content: bytes, told: str) -> None:
    assert opened(written(tmp_path, content)) == ({}, [told])


@pytest.mark.parametrize("content", [b"1" * 5000, b"[" * 100_000])
def test_what_python_cannot_hold_is_a_fault_too(tmp_path: Path, content: bytes) -> None:
    value, (told,) = opened(written(tmp_path, content))
    assert value == {} and "spec.json: cannot be read as JSON" in told and told.endswith("write it plainly")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert opened(tmp_path / "none.json") == ({}, ["spec.json: does not exist; give the path of the file"])


def test_a_folder_is_no_document(tmp_path: Path) -> None:
    value, (told,) = opened(tmp_path)
    assert value == {} and told == "spec.json: cannot be read (Is a directory); give a file that you may read"
