"""A digest is of content alone: not of spelling, place or order."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.digests import canonical_json, digest_bytes, digest_json, digest_path

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def test_the_form_is_sha256_with_its_name():
    assert digest_bytes(b"abc") == "sha256:" + hashlib.sha256(b"abc").hexdigest()


def test_canonical_json_is_rfc_8785():
    value = {"b": 1.0, "a": [True, None, "é\n"], "A": 1e21}
    assert canonical_json(value) == '{"A":1e+21,"a":[true,null,"é\\n"],"b":1}'.encode()


@given(values)
def test_canonical_json_loses_nothing_and_has_one_spelling(value):
    again = json.loads(canonical_json(value))
    assert again == value
    assert canonical_json(again) == canonical_json(value)


@given(st.dictionaries(texts, values, min_size=1, max_size=5))
def test_the_order_of_keys_does_not_count(value):
    backwards = dict(reversed(list(value.items())))
    assert digest_json(backwards) == digest_json(value)


@given(values, values)
def test_different_values_have_different_digests(one, other):
    same = canonical_json(one) == canonical_json(other)
    assert (digest_json(one) == digest_json(other)) == same


def test_numbers_that_json_does_not_know_are_refused():
    for value in (float("nan"), float("inf"), 2**60):
        with pytest.raises(ValueError):
            digest_json({"x": value})


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_is_digested_whole_across_chunks(tmp_path, size):
    data = bytes(i % 251 for i in range(1024)) * (size // 1024 + 1)
    (tmp_path / "file").write_bytes(data[:size])
    assert digest_path(tmp_path / "file") == digest_bytes(data[:size])


def make_folder(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_a_folder_is_the_same_wherever_it_lies_and_whenever_it_was_written(tmp_path):
    files = {"model.bin": b"weights", "deep/config.json": b"{}"}
    one = make_folder(tmp_path / "one", files)
    other = make_folder(tmp_path / "else/other", dict(reversed(files.items())))
    os.utime(other / "model.bin", (0, 0))
    assert digest_path(one) == digest_path(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "model.bin").write_bytes(b"Weights"),
        lambda root: (root / "model.bin").rename(root / "model2.bin"),
        lambda root: (root / "deep/model.bin").write_bytes(b"more"),
        lambda root: shutil.rmtree(root / "deep"),
        lambda root: (root / "model.bin").rename(root / "deep/model.bin"),
    ],
    ids=["edited", "renamed", "added", "removed", "moved"],
)
def test_every_change_in_a_folder_shows(tmp_path, change):
    root = make_folder(tmp_path / "folder", {"model.bin": b"weights", "deep/config.json": b"{}"})
    before = digest_path(root)
    change(root)
    assert digest_path(root) != before


def test_a_linked_file_counts_as_what_it_points_to(tmp_path):
    plain = make_folder(tmp_path / "plain", {"model.bin": b"weights"})
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "model.bin").symlink_to(plain / "model.bin")
    assert digest_path(linked) == digest_path(plain)
