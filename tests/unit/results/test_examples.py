"""Reading examples: all faults at once, and a digest of what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError
from modelyard.results.examples import read_examples, set_digest


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_examples_are_read_and_digested(tmp_path: Path) -> None:
    first = {"id": "a", "prompt": "2+2?", "answers": ["4"], "scorer": "numeric", "options": {"absolute": 1}}
    second = {"id": "b", "messages": [{"role": "user", "content": "?"}], "answers": ["x"], "critical": True}
    one, two = read_examples(write(tmp_path / "s.jsonl", first, "", second))
    assert (one.scorer, one.options, one.split) == ("numeric", {"absolute": 1}, "fit")
    assert two.messages == (("user", "?"),) and two.critical
    assert set_digest((one, two)) == set_digest((two, one)) != set_digest((one,))


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    good = {"id": "a", "prompt": "p", "answers": ["x"]}
    path = write(
        tmp_path / "s.jsonl", good, good, "{", [1], {**good, "id": "b", "promt": "q"}, {"id": "c"},
        {**good, "id": "d", "scorer": "regex", "options": {"pattern": "("}},
    )  # fmt: skip
    with pytest.raises(DocumentError) as caught:
        read_examples(path)
    told = str(caught.value)
    for part in (
        "line 2.id", "stands on line 1", "line 3: is not JSON", "line 4", "did you mean prompt?",
        "line 6: needs either", "line 6.answers", "line 7.options.pattern",
    ):  # fmt: skip
        assert part in told


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("s") / "s.jsonl"
    path.write_bytes(data)
    with pytest.raises(DocumentError):
        read_examples(path)
