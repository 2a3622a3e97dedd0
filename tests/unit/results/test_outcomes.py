"""The results and prompts tables: what is written comes back, what cannot be right is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from modelyard.core.errors import TableError
from modelyard.results.outcomes import RESULTS, load_prompts, load_results, write_prompts, write_results

ROW = {"model": "m", "example_id": "e", "value": 0.5}
COLUMNS = [
    "schema", "run_id", "model", "model_digest", "set_digest", "split", "example_id", "group_id", "sample",
    "metric", "value", "scorer", "scorer_version", "weight", "critical", "cost_usd", "latency_s",
    "prompt_tokens", "completion_tokens", "output_digest", "error",
]  # fmt: skip


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    write_results(path, [ROW, {**ROW, "sample": 1, "cost_usd": 0.25}])
    table = load_results(path)
    assert table.column_names == COLUMNS
    assert table["cost_usd"].to_pylist() == [None, 0.25]
    assert table["metric"].to_pylist() == ["score", "score"] and table["weight"].to_pylist() == [1.0, 1.0]
    assert pq.read_schema(path).metadata[b"modelyard.schema"] == RESULTS.version.encode()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, ROW], "more than once"),
        ([{**ROW, "value": 1.5}], r"a score lies in \[0, 1\]"),
        ([{**ROW, "value": float("nan")}], "value is nan"),
        ([{**ROW, "value": None}], "value is missing in row 1"),
        ([{**ROW, "model": None}], "model is missing"),
        ([{**ROW, "cost_usd": -1.0}], "cost_usd is -1.0"),
        ([{**ROW, "price": 1}], "no column price"),
        ([{**ROW, "value": "much"}], "cannot be written"),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path: Path, rows: list[dict[str, object]], message: str) -> None:
    with pytest.raises(TableError, match=message):
        write_results(tmp_path / "results.parquet", rows)
    assert not (tmp_path / "results.parquet").exists()


def test_another_metric_may_be_any_number(tmp_path: Path) -> None:
    write_results(tmp_path / "r", [{**ROW, "metric": "perplexity", "value": 17.0}])
    assert load_results(tmp_path / "r")["value"].to_pylist() == [17.0]


def test_a_file_that_is_no_results_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    with pytest.raises(TableError, match="no such file"):
        load_results(path)
    path.write_text("model,value\n")
    with pytest.raises(TableError, match="Parquet"):
        load_results(path)
    write_results(path, [ROW])
    pq.write_table(pq.read_table(path).drop_columns(["scorer"]), path)
    with pytest.raises(TableError, match="lacks scorer"):
        load_results(path)
    write_prompts(path, [{"example_id": "e", "text": "?"}])
    with pytest.raises(TableError, match=r"is modelyard.prompts/1, but modelyard.results/1"):
        load_results(path)


def test_prompts_come_back_and_stand_once(tmp_path: Path) -> None:
    path = tmp_path / "prompts.parquet"
    write_prompts(path, [{"example_id": "e", "text": "?"}])
    assert load_prompts(path)["text"].to_pylist() == ["?"]
    with pytest.raises(TableError, match="more than once"):
        write_prompts(path, [{"example_id": "e", "text": "?"}] * 2)
