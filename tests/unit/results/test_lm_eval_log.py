"""Importing lm-eval: logs that it wrote, and the breaks that a log may have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from modelyard.core.errors import TableError
from modelyard.results.importers import write_import
from modelyard.results.importers.lm_eval import read_lm_eval
from modelyard.results.outcomes import load_prompts, load_results

LOGS = Path(__file__).parent / "fixtures/lm_eval"


def log_of(model: str, task: str) -> Path:
    return next((LOGS / model).glob(f"samples_{task}_*.jsonl"))


def rows_of(*files: Path, out: Path, model: str | None = None) -> list[dict[str, Any]]:
    write_import((record for file in files for record in read_lm_eval(file, model)), out)
    rows: list[dict[str, Any]] = load_results(out / "results.parquet").to_pylist()
    return rows


def prompts_of(out: Path) -> dict[str, str]:
    return {row["example_id"]: row["text"] for row in load_prompts(out / "prompts.parquet").to_pylist()}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(path: Path, *samples: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in samples))
    return path


def sample(doc: object, **more: Any) -> dict[str, Any]:
    return {"doc_id": doc, "doc_hash": f"h{doc}", "metrics": ["acc"], "acc": 1.0, **more}


@pytest.mark.parametrize(
    ("folder", "task", "metric", "average"),
    [
        ("example__tiny", "sums", "score", "acc,none"),
        ("example__tiny", "sums", "acc_norm", "acc_norm,none"),
        ("example__tiny", "who", "score", "acc,none"),
        ("example__small", "sums", "score", "acc,none"),
        ("flat", "gens", "score", "exact_match,strict"),
        ("flat", "gens", "exact_match,loose", "exact_match,loose"),
    ],
)
def test_means_are_the_averages_of_lm_eval(
    tmp_path: Path, folder: str, task: str, metric: str, average: str
) -> None:
    rows_of(log_of(folder, task), out=tmp_path)
    table = load_results(tmp_path / "results.parquet")
    told = json.loads(next((LOGS / folder).glob("*.json")).read_text())["results"][task]
    chosen = table.filter(pc.equal(table["metric"], metric))
    assert len(chosen) == told["sample_len"]
    assert pc.mean(chosen["value"]).as_py() == pytest.approx(told[average])


def test_several_tasks_and_models_at_once(tmp_path: Path) -> None:
    files = [log_of("example__tiny", task) for task in ("sums", "gens", "who")]
    rows = rows_of(*files, log_of("example__small", "sums"), log_of("flat", "gens"), out=tmp_path)
    keys = {(r["model"], r["example_id"], r["sample"]) for r in rows if r["metric"] == "score"}
    sums, gens = ([(f"{task}/{doc}", n) for doc, n in ((0, 0), (1, 0), (0, 1))] for task in ("sums", "gens"))
    assert keys == {
        *(("example/tiny", *each) for each in (*sums, *gens, ("who/0", 0), ("who/1", 0))),
        *(("example/small", *each) for each in sums),
        *(("example/chat", *each) for each in gens),
    }


def test_a_metric_over_pairs_is_left_out(tmp_path: Path) -> None:
    assert "mcc" in lines_of(log_of("example__tiny", "sums"))[0]["metrics"]
    rows = rows_of(log_of("example__tiny", "sums"), out=tmp_path)
    assert {(r["metric"], r["scorer"]) for r in rows} == {
        ("score", "lm-eval:acc"), ("acc_norm", "lm-eval:acc_norm"),
    }  # fmt: skip


def test_the_prompt_is_what_stands_before_the_answer(tmp_path: Path) -> None:
    rows_of(*(log_of("example__tiny", task) for task in ("sums", "gens", "who")), out=tmp_path)
    assert prompts_of(tmp_path) == {
        **{f"{task}/0": "Q: What is 2 + 2?\nA:" for task in ("sums", "gens")},
        **{f"{task}/1": "Q: What is 3 + 4?\nA:" for task in ("sums", "gens")},
        "who/0": "The cup did not fit in the bag because the",
        "who/1": "Ann thanked Eve because",
    }


def test_the_prompt_of_a_chat_is_its_text(tmp_path: Path) -> None:
    rows_of(log_of("flat", "gens"), out=tmp_path)
    assert prompts_of(tmp_path)["gens/0"] == "Answer briefly.\n\nQ: What is 2 + 2?\nA:"


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        ([["Q:", " a"], ["Q:", " b"]], "Q:"),
        ([[['[{"role": "user", "content": "Q"}]'], {"until": []}]], "Q"),
        ([[['[{"content": ""}, {"content": null}, {"content": "Q"}]'], {}]], "Q"),
        ({"gen_args_0": {"arg_0": "[1]", "arg_1": {}}}, "[1]"),
        ({"gen_args_0": {"arg_0": ["not JSON"]}}, "not JSON"),
        ({"gen_args_0": {"arg_0": "A b"}, "gen_args_1": {"arg_0": ""}}, "A b"),
        ({"gen_args_0": {"arg_0": "A b"}, "gen_args_1": {"arg_0": "C"}}, "A b"),
        ({"gen_args_0": {"arg_0": "Is cup"}, "gen_args_1": {"arg_0": "Is cap"}}, "Is"),
        ({"gen_args_0": 3}, None),
        ([], None),
        (None, None),
    ],
)
def test_arguments_of_every_make(tmp_path: Path, arguments: object, prompt: str | None) -> None:
    rows_of(written(tmp_path / "samples_t.jsonl", sample(0, arguments=arguments)), out=tmp_path)
    assert prompts_of(tmp_path).get("t/0") == prompt


def test_the_model_is_the_runs_the_folders_or_the_given(tmp_path: Path) -> None:
    alone = tmp_path / "org__m" / log_of("flat", "gens").name
    alone.parent.mkdir()
    shutil.copy(log_of("flat", "gens"), alone)
    assert {r["model"] for r in rows_of(alone, out=tmp_path)} == {"org__m"}
    other_run = alone.with_name("run_2020-01-01T00-00-00.000000.json")
    other_run.write_text('{"model_name": "another"}')
    assert {r["model"] for r in rows_of(alone, out=tmp_path)} == {"org__m"}
    assert {r["model"] for r in rows_of(log_of("flat", "gens"), out=tmp_path)} == {"example/chat"}
    assert {r["model"] for r in rows_of(log_of("flat", "gens"), out=tmp_path, model="x")} == {"x"}


def test_averages_that_are_broken_are_named(tmp_path: Path) -> None:
    log = tmp_path / log_of("flat", "gens").name
    shutil.copy(log_of("flat", "gens"), log)
    beside = next((LOGS / "flat").glob("*.json")).name
    (tmp_path / beside).write_text("{")
    with pytest.raises(TableError, match=rf"{beside}: is not JSON"):
        list(read_lm_eval(log, None))


def test_logs_before_doc_hash_join_with_those_after(tmp_path: Path) -> None:
    real = lines_of(log_of("example__tiny", "sums"))
    bare = [{k: v for k, v in each.items() if not k.endswith("_hash")} for each in reversed(real)]
    for place, each in enumerate(bare):
        each["doc_id"] = place
        each["arguments"] = [["<user>" + a["arg_0"], a["arg_1"]] for a in each["arguments"].values()]
    old = written(tmp_path / "samples_sums.jsonl", *bare)
    rows = rows_of(log_of("example__tiny", "sums"), old, out=tmp_path)
    keys = [{(r["example_id"], r["sample"], r["metric"], r["value"]) for r in rows if r["model"] == m}
            for m in ("example/tiny", tmp_path.name)]  # fmt: skip
    assert len(keys[0]) == 6 and keys[0] == keys[1]


def test_old_tasks_over_one_prompt_stay_apart(tmp_path: Path) -> None:
    bare = {"doc_id": 0, "arguments": [["Q", "A"]], "acc": 1.0}
    files = [written(tmp_path / f"samples_{task}.jsonl", bare) for task in ("a", "b")]
    assert {r["example_id"] for r in rows_of(*files, out=tmp_path)} == {"a/0", "b/0"}


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), 10**400, "high", [1, 0]])
def test_a_sample_without_its_main_metric_is_wrong_and_says_so(tmp_path: Path, missing: object) -> None:
    samples = [sample(i, metrics=["acc_norm", "acc"], acc_norm=1.0) for i in range(2)]
    samples[1]["acc"] = missing
    rows = rows_of(written(tmp_path / "samples_t.jsonl", *samples), out=tmp_path)
    told = {(r["example_id"], r["metric"]): (r["value"], r["error"]) for r in rows}
    assert told == {
        ("t/0", "score"): (1.0, None),
        ("t/0", "acc_norm"): (1.0, None),
        ("t/1", "score"): (0.0, "the log has no number for acc"),
        ("t/1", "acc_norm"): (1.0, None),
    }


@pytest.mark.parametrize(
    ("values", "main"),
    [
        ({"bleu_max": 31.0, "bleu_acc": 1}, "bleu_acc"),
        (
            {"prompt_level_strict_acc": True, "inst_level_strict_acc": [True, False]},
            "prompt_level_strict_acc",
        ),
        ({"perplexity": -3.5, "acc": 1.0}, "acc"),
        ({"likelihood_diff": 0.25}, "likelihood_diff"),
    ],
)
def test_which_metric_is_the_score(tmp_path: Path, values: dict[str, Any], main: str) -> None:
    given = {"doc_id": 0, "metrics": list(values), **values}
    rows = rows_of(written(tmp_path / "samples_t.jsonl", given), out=tmp_path)
    assert [r["scorer"] for r in rows if r["metric"] == "score"] == [f"lm-eval:{main}"]
    assert len(rows) == sum(not isinstance(each, list) for each in values.values())


def test_a_second_metric_called_score_does_not_clash(tmp_path: Path) -> None:
    given = sample(0, metrics=["acc", "score"], score=7.5)
    rows = rows_of(written(tmp_path / "samples_t.jsonl", given), out=tmp_path)
    assert {r["metric"]: r["value"] for r in rows} == {"score": 1.0, "lm-eval:score": 7.5}


@pytest.mark.parametrize("metrics", [None, []])
def test_a_log_without_names_of_metrics(tmp_path: Path, metrics: object) -> None:
    rows = rows_of(written(tmp_path / "samples_t.jsonl", sample(0, metrics=metrics)), out=tmp_path)
    assert [(r["metric"], r["scorer"]) for r in rows] == [("score", "lm-eval:acc")]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (sample([0]), "has no doc_id"),
        (sample(True), "has no doc_id"),
        (sample(1, metrics="acc"), "metrics is 'acc', not a list"),
        (sample(1, metrics=[["acc"]]), "not a list of names"),
        (sample(1, acc=1.5), r"acc is 1.5, but a score lies in \[0, 1\]; leave this log out"),
        ([1], "is not a JSON object"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, broken: Any, message: str) -> None:
    log = written(tmp_path / "samples_t.jsonl", sample(0), broken)
    with pytest.raises(TableError, match=rf"samples_t\.jsonl: line 2: .*{message}"):
        list(read_lm_eval(log, None))


def test_perplexity_and_averages_are_refused_with_a_remedy() -> None:
    with pytest.raises(TableError, match="line 1: has no metric that is a number; leave this log out"):
        list(read_lm_eval(log_of("example__tiny", "text"), None))
    averages = next((LOGS / "example__tiny").glob("results_*.json"))
    with pytest.raises(TableError, match="holds averages only; give samples_"):
        list(read_lm_eval(averages, None))


def test_a_log_given_twice_is_refused(tmp_path: Path) -> None:
    log = log_of("example__tiny", "sums")
    with pytest.raises(TableError, match="stand more than once"):
        rows_of(log, log, out=tmp_path)


def test_equal_documents_are_samples_of_one_example_in_every_filter(tmp_path: Path) -> None:
    """A metric that the first of them lacks still stands at the sample of the one that has it."""
    loose = {"filter": "loose", "doc_hash": "h"}
    log = written(
        tmp_path / "samples_t.jsonl",
        sample(0, filter="strict", doc_hash="h"), sample(0, **loose), sample(1, filter="strict"),
        sample(2, filter="strict", doc_hash="h", acc=0.0, metrics=["acc", "f1"], f1=0.5), sample(2, **loose),
    )  # fmt: skip
    told = {(r["example_id"], r["sample"], r["metric"]): r["value"] for r in rows_of(log, out=tmp_path)}
    assert told == {
        ("t/0", 0, "score"): 1, ("t/0", 0, "acc,loose"): 1, ("t/1", 0, "score"): 1,
        ("t/0", 1, "score"): 0, ("t/0", 1, "f1"): 0.5, ("t/0", 1, "acc,loose"): 1,
    }  # fmt: skip


def test_an_equal_document_that_stands_twice_is_refused_under_its_own_id(tmp_path: Path) -> None:
    log = written(tmp_path / "samples_t.jsonl", *(sample(each, doc_hash="h") for each in (0, 2, 2)))
    with pytest.raises(TableError, match=r"line 3: .* example 't/2', sample 0, .* stand more than once"):
        rows_of(log, out=tmp_path)
