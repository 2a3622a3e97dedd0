"""`modelyard import` on a real inspect log, on lm-eval samples and on CSV."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from modelyard.core.errors import TableError
from modelyard.results.outcomes import load_prompts, load_results

Call = Callable[..., Result]
LOG = Path(__file__).parents[1] / "results/fixtures/sums.eval"


def sample(doc: int, **more: object) -> str:
    return json.dumps(
        {
            "doc_id": doc, "doc": {}, "target": "x", "filter": "none", "metrics": ["acc_norm", "acc"],
            "arguments": {"gen_args_0": {"arg_0": f"question {doc}", "arg_1": " x"}}, "resps": [["x"]],
            "filtered_resps": ["x"], "acc_norm": 0.0, "acc": 1.0, "doc_hash": f"h{doc}", **more,
        }
    )  # fmt: skip


def test_inspect_logs_as_zip(call: Call, tmp_path: Path) -> None:
    assert call("import", "inspect", LOG, "--output", "out").exit_code == 0
    rows = load_results(tmp_path / "out/results.parquet").to_pylist()
    scores = {(r["example_id"], r["sample"]): r["value"] for r in rows if r["metric"] == "score"}
    assert scores == {(f"sums/q{i}", s): float(i == 1) for i in range(3) for s in range(2)}
    assert {(r["model"], r["prompt_tokens"], r["metric"]) for r in rows} == {
        ("mockllm/model", 7, "score"), ("mockllm/model", 7, "exact"),
    }  # fmt: skip
    assert "What is 1+1?" in load_prompts(tmp_path / "out/prompts.parquet")["text"].to_pylist()


def test_inspect_json_counts_a_failed_sample_as_wrong(call: Call, tmp_path: Path) -> None:
    failed = {"id": 1, "epoch": 1, "input": [{"role": "user", "content": "?"}], "error": {"message": "down"}}
    log = {"eval": {"model": "m", "task": "t", "run_id": "r"}, "samples": [failed]}
    (tmp_path / "run.json").write_text(json.dumps(log))
    assert call("import", "inspect", "run.json", "--output", "out", "--model", "n").exit_code == 0
    row = load_results(tmp_path / "out/results.parquet").to_pylist()[0]
    assert (row["model"], row["value"], row["error"], row["cost_usd"]) == ("n", 0.0, "down", None)


def test_lm_eval_joins_models_on_the_question(call: Call, tmp_path: Path) -> None:
    for model, docs in (("a", (0, 1)), ("b", (1, 0))):
        (tmp_path / model).mkdir()
        lines = [sample(place, doc_hash=f"h{doc}") for place, doc in enumerate(docs)]
        (tmp_path / model / "samples_arc_2025-01-02T03-04-05.678.jsonl").write_text("\n".join(lines))
    files = [next((tmp_path / model).iterdir()) for model in "ab"]
    assert call("import", "lm-eval", *files, "--output", "out").exit_code == 0
    rows = load_results(tmp_path / "out/results.parquet").to_pylist()
    assert [(r["model"], r["example_id"]) for r in rows if r["metric"] == "score"] == [
        ("a", "arc/0"), ("a", "arc/1"), ("b", "arc/1"), ("b", "arc/0"),
    ]  # fmt: skip
    assert {r["value"] for r in rows if r["metric"] == "score"} == {1.0}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([sample(0), sample(0)], "more than once"),
        ([sample(0), sample(0, doc_hash="other")], "two different questions"),
        (["{"], "line 1: is not JSON"),
        (['{"id": 1}'], "no doc_id"),
        ([sample(0, metrics=["x"])], "no metric"),
        ([], "nothing to import"),
    ],
)
def test_lm_eval_logs_that_are_wrong(call: Call, tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "samples_arc.jsonl").write_text("\n".join(lines))
    result = call("import", "lm-eval", "samples_arc.jsonl", "--output", "out")
    assert isinstance(result.exception, TableError) and message in str(result.exception)


def test_csv_and_its_warning(call: Call, tmp_path: Path) -> None:
    lines = ["model,example_id,score,prompt,cost_usd"]
    for item in range(80):
        for model, right in (("a", item % 2), ("b", item % 2), ("c", item % 2), ("d", (item + 1) % 2)):
            lines.append(f"{model},{item},{right},p{item},")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    result = call("import", "csv", "t.csv", "--output", "out", "--json")
    assert result.exit_code == 0 and "WARNING: d:" in result.stderr
    assert json.loads(result.stdout)["rows"] == 320
    assert load_results(tmp_path / "out/results.parquet")["cost_usd"].null_count == 320


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,score\na,1\n", "lacks example_id"),
        ("model,example_id,score,x\na,1,1,2\n", "unknown x"),
        ("model,example_id,score\na,,1\n", "line 2"),
        ("model,example_id,score\na,1,2\n", "a score lies in"),
        ("model,example_id,score\na,1,high\n", "cannot be read as CSV"),
    ],
)
def test_csv_tables_that_are_wrong(call: Call, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    result = call("import", "csv", "t.csv", "--output", "out")
    assert isinstance(result.exception, TableError) and message in str(result.exception)


def test_an_empty_score_is_a_failed_answer(call: Call, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("model,example_id,score,prompt\na,1,,p\na,2,1,q\n")
    assert call("import", "csv", "t.csv", "--output", "out").exit_code == 0
    table = load_results(tmp_path / "out/results.parquet")
    assert (table["value"].to_pylist(), table["error"].to_pylist()) == ([0.0, 1.0], ["no answer", None])


def test_csv_prompts_may_have_lines(call: Call, tmp_path: Path) -> None:
    rows = "".join(f'm,{i},1,"{i} first\nsecond"\n' for i in range(60_000))
    (tmp_path / "t.csv").write_text("model,example_id,score,prompt\n" + rows)
    assert call("import", "csv", "t.csv", "--output", "out").exit_code == 0
    assert load_prompts(tmp_path / "out/prompts.parquet")["text"][59_999].as_py() == "59999 first\nsecond"
