"""Prompts of recent requests: folders, Parquet, JSON lines, and what is none of them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.core.errors import RoutingError, TableError
from modelyard.results.outcomes import write_prompts
from modelyard.routing.recent import read_recent


def lines(path, records):
    path.write_text("\n".join(map(json.dumps, records)) + "\n\n", encoding="utf-8")
    return path


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_all_kinds_are_read_in_turn(tmp_path):
    write_prompts(tmp_path / "prompts.parquet", [{"example_id": "1", "text": "in a folder"}])
    # a line separator inside a text ends no line
    log = lines(tmp_path / "a.jsonl", [{"prompt": "ä\u2028b", "text": "not this"}, {"text": "two", "id": 3}])
    rows = table(tmp_path / "b.parquet", prompt=["three", "three"], id=[1, 2])
    read = read_recent([log, rows, tmp_path])
    assert read == ["ä\u2028b", "two", "three", "three", "in a folder"]


def test_a_parquet_file_is_read_itself_and_not_the_prompts_beside_it(tmp_path):
    write_prompts(tmp_path / "prompts.parquet", [{"example_id": "1", "text": "of the fit"}])
    assert read_recent([table(tmp_path / "recent.parquet", text=["new"])]) == ["new"]
    assert read_recent([tmp_path / "prompts.parquet"]) == ["of the fit"]


@pytest.mark.parametrize("value", [None, 3, ["a"], {"a": 1}])
def test_a_record_without_a_text_is_named(tmp_path, value):
    log = lines(tmp_path / "a.jsonl", [{"prompt": "one"}, {"prompt": value}])
    with pytest.raises(RoutingError, match=r"a\.jsonl: line 2 has no prompt.* as prompt or text"):
        read_recent([log])


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(RoutingError, match="line 1 has no prompt"):
        read_recent([lines(tmp_path / "a.jsonl", ["only a text"])])
    with pytest.raises(RoutingError, match=r"b\.parquet: has no column prompt or text"):
        read_recent([table(tmp_path / "b.parquet", question=["one"])])
    with pytest.raises(RoutingError, match=r"c\.parquet: row 2 has no prompt"):
        read_recent([table(tmp_path / "c.parquet", text=["one", None])])
    (tmp_path / "d.jsonl").write_text('{"prompt": "one"')
    (tmp_path / "d.parquet").write_text("no table")
    (tmp_path / "e.jsonl").write_bytes(b'{"prompt": "\xff"}')
    for name in ("d.jsonl", "d.parquet", "e.jsonl", "none.jsonl", "none.parquet"):
        with pytest.raises(RoutingError, match=rf"{name}: cannot be read as .*; write it again"):
            read_recent([tmp_path / name])
    with pytest.raises(TableError, match=r"prompts\.parquet: there is no such file"):
        read_recent([tmp_path / "nowhere"])
