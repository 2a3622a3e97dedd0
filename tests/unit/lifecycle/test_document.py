"""The YAML document: strict where YAML would guess, and never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError
from modelyard.lifecycle.document import YardDocument, read_document

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=6,
)


def read(folder: Path, content: str | bytes) -> YardDocument:
    path = folder / "yard.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_document(path)


def told(folder: Path, content: str | bytes) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        read(folder, content)
    start = f"{folder / 'yard.yaml'}"
    lines = [str(fault) for fault in caught.value.faults]
    assert all(line.startswith(start) for line in lines)
    return [line.removeprefix(start) for line in lines]


def test_a_document_is_a_json_value_and_a_date_the_text_that_was_written(tmp_path: Path) -> None:
    document = read(tmp_path, "name: a\n1: [x, 2, 0.5, true, null]\nday: 2024-01-02T03:04:05Z\n")
    assert document.name == "a" and document.path == tmp_path / "yard.yaml"
    assert document.data == {"name": "a", "1": ["x", 2, 0.5, True, None], "day": "2024-01-02T03:04:05Z"}


@given(value=values)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    document = read(tmp_path_factory.getbasetemp(), yaml.safe_dump({"name": "a", "value": value}))
    assert document.data == {"name": "a", "value": value}


@given(st.text())
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    try:
        document = read(tmp_path_factory.getbasetemp(), text.encode(errors="replace"))
    except DocumentError as error:
        assert error.faults
    else:
        assert document.name


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            "name: a\nname: b\n",
            ": line 2, column 1: is not YAML (the key 'name' stands twice); correct the file there",
        ),
        (
            "name: a\nx:\n  - {b: 1, c: 2, b: 3}\n",
            ": line 3, column 18: is not YAML (the key 'b' stands twice); correct the file there",
        ),
        (
            'name: a\n1: x\n"1": y\n',
            ": line 3, column 1: is not YAML (the key '1' stands twice); correct the file there",
        ),
        (
            "name: a\n? [b, c]\n: d\n",
            ": line 2, column 3: is not YAML (a key is not a word); correct the file there",
        ),
        (
            "name: a\nx: *b\n",
            ": line 2, column 4: is not YAML (found undefined alias 'b'); correct the file there",
        ),
        (
            "name: a\nx: &b [*b]\n",
            ": holds itself, or is nested too deeply; write it without aliases (*name)",
        ),
        ("name: " + "[" * 3000, ": holds itself, or is nested too deeply; write it without aliases (*name)"),
        (
            "name: a\n---\nname: b\n",
            ": line 2, column 1: is not YAML (but found another document); correct the file there",
        ),
        (
            "name: a\x01",
            ": cannot be read as YAML (unacceptable character #x0001: special characters are not "
            'allowed in "<unicode string>", position 7); write it plainly',
        ),
        (
            "name: a\nday: !!timestamp 2024-13-45\n",
            ": cannot be read as YAML (month must be in 1..12); write it plainly",
        ),
        (b"name: \xff", ": is not UTF-8 text (byte 6); save it as UTF-8"),
        ("name: 7", " : name = 7: is not a non-empty string; write a string"),
        ("name: a b", ": name = \"a b\": cannot name a folder; use letters, digits, '.', '_', '-'"),
        ("name: ../b", ": name = \"../b\": cannot name a folder; use letters, digits, '.', '_', '-'"),
        ("horizon: 1", ": name: is missing; write a string"),
    ],
)
def test_what_is_no_document_of_ours_is_told_with_its_place(
    tmp_path: Path, content: str | bytes, fault: str
) -> None:
    assert told(tmp_path, content) == [fault.removeprefix(" ")]


@pytest.mark.parametrize("content", ["", "- a\n", "just text"])
def test_a_document_is_a_mapping(tmp_path: Path, content: str) -> None:
    first, second = told(tmp_path, content)
    assert first.endswith("is not a mapping of keys to values; write key: value pairs here")
    assert second == ": name: is missing; write a string"


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    (fault,) = told(tmp_path, 'name: "a"\nx: "\\ud800"\n')
    assert "cannot be read as YAML" in fault and "surrogates not allowed" in fault


def test_tags_run_nothing(tmp_path: Path) -> None:
    (fault,) = told(tmp_path, "name: a\nx: !!python/object/apply:os.system ['touch owned']\n")
    assert "could not determine a constructor" in fault


def test_a_file_that_is_not_there_and_one_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"does not exist; give the path of the file, or make one with"):
        read_document(tmp_path / "none.yaml")
    with pytest.raises(DocumentError, match=r"cannot be read \(Is a directory\)"):
        read_document(tmp_path)


def test_merged_keys_are_not_doubled_ones(tmp_path: Path) -> None:
    text = "name: a\nbase: &b {x: 1, y: 2}\nmore: &m {<<: *b, y: 3}\nmost: [{<<: *m, x: 4}, {<<: [*b, *m]}]\n"
    data = read(tmp_path, text).data
    assert data["more"] == {"x": 1, "y": 3}
    assert data["most"] == [{"x": 4, "y": 3}, {"x": 1, "y": 2}]


@pytest.mark.parametrize(
    "same",
    ["name: a\nx: {b: 1, c: 2}\n", "# why\nx:\n  c: 2\n  b: 1\nname: 'a'\n", "name: a\nx: &q {c: 2, b: 1}"],
)
def test_layout_and_comments_do_not_change_the_digest(tmp_path: Path, same: str) -> None:
    assert read(tmp_path, same).digest == read(tmp_path, "{x: {b: 1, c: 2}, name: a}").digest


@given(first=values, second=values)
def test_what_is_said_otherwise_has_another_digest(
    tmp_path_factory: pytest.TempPathFactory, first: object, second: object
) -> None:
    folder = tmp_path_factory.getbasetemp()
    one, two = (read(folder, yaml.safe_dump({"name": "a", "x": value})) for value in (first, second))
    assert (one.digest == two.digest) == (
        json.dumps(one.data, sort_keys=True) == json.dumps(two.data, sort_keys=True)
    )


@pytest.mark.parametrize("odd", [".nan", ".inf", str(10**40), "!!binary aGk="])
def test_odd_values_are_for_the_reader_of_the_key_to_judge(tmp_path: Path, odd: str) -> None:
    plain, changed = read(tmp_path, "name: a\nx: 1"), read(tmp_path, f"name: a\nx: {odd}")
    assert changed.digest != plain.digest


def test_the_loader_leaves_yaml_itself_alone() -> None:
    assert yaml.safe_load("2024-01-02").year == 2024


@pytest.mark.parametrize(
    "added", ["watch: {every: 1h}", "notify: {run: tell}", "models: [{name: m, retrain: {age: 7d}}]"]
)
def test_when_to_look_and_whom_to_tell_is_no_other_run(tmp_path: Path, added: str) -> None:
    models = "models: [{name: m}]"
    said = added if added.startswith("models") else f"{models}\n{added}"
    assert read(tmp_path, f"name: a\n{said}").digest == read(tmp_path, f"name: a\n{models}").digest
    assert read(tmp_path, f"name: a\n{models}\nx: 1").digest != read(tmp_path, f"name: a\n{models}").digest
