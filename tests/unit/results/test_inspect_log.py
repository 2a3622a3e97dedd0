"""Importing inspect_ai: a log that it wrote with failures in it, and values of odd types."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import TableError
from modelyard.results.importers import write_import
from modelyard.results.importers.inspect_log import read_inspect
from modelyard.results.outcomes import load_prompts, load_results

LOG = Path(__file__).parent / "fixtures/inspect/primes.eval"


def rows_of(*files: Path, out: Path) -> list[dict[str, Any]]:
    write_import((record for file in files for record in read_inspect(file, None)), out)
    rows: list[dict[str, Any]] = load_results(out / "results.parquet").to_pylist()
    return rows


def sample(known: int | str = 1, value: object = 1, **more: Any) -> dict[str, Any]:
    return {"id": known, "epoch": 1, "input": f"q{known}", "scores": {"told": {"value": value}}, **more}


def log_of(*samples: Any, **told: Any) -> dict[str, Any]:
    return {"eval": {"model": "m", "task": "t", "run_id": "r", **told}, "samples": list(samples)}


def written(path: Path, log: object) -> Path:
    path.write_text(json.dumps(log))
    return path


def packed(path: Path, log: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps({"eval": log["eval"]}))
        for number, each in enumerate(log["samples"]):
            archive.writestr(f"samples/{number}_epoch_1.json", json.dumps(each))
    return path


def test_every_sample_of_a_real_log_has_a_score(tmp_path: Path) -> None:
    rows = rows_of(LOG, out=tmp_path)
    told = {r["example_id"]: (r["value"], r["error"]) for r in rows if r["metric"] == "score"}
    assert told == {
        "primes/p1": (1.0, None),
        "primes/p2": (0.0, "RuntimeError('the tool did not answer')"),
        "primes/p3": (0.0, None),
        "primes/p4": (0.0, "the sample was not scored"),
        "primes/p5": (1.0, None),
        "primes/p6": (0.0, "the sample was not scored"),
    }
    assert {r["scorer"] for r in rows if r["metric"] == "score"} == {"inspect:told"}
    assert {(r["prompt_tokens"], r["completion_tokens"]) for r in rows if r["example_id"] != "primes/p2"} == {
        (9, 3)
    }


def test_a_scorer_of_several_numbers_is_several_metrics(tmp_path: Path) -> None:
    rows = rows_of(LOG, out=tmp_path)
    told = {(r["example_id"][-2:], r["metric"]): r["value"] for r in rows if r["metric"] != "score"}
    assert told == {
        **{(f"p{i}", "parts.right"): float(i in (1, 5)) for i in (1, 3, 4, 5, 6)},
        **{(f"p{i}", "parts.words"): words for i, words in ((1, 3), (3, 3), (4, 1), (5, 3), (6, 0))},
    }


def test_the_text_of_a_message_in_parts_is_the_prompt(tmp_path: Path) -> None:
    rows_of(LOG, out=tmp_path)
    prompts = {r["example_id"]: r["text"] for r in load_prompts(tmp_path / "prompts.parquet").to_pylist()}
    assert prompts["primes/p3"] == "Name a prime above 13."


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (3, "is no object but 3"),
        ([1], r"is no object but \[1\]"),
        (None, "is no object but None"),
        ({"epoch": 1}, "has no id"),
        (sample(epoch="first"), "epoch is 'first', not a whole number from 1"),
        (sample(epoch=None), "epoch is None"),
        (sample(epoch=0), "epoch is 0"),
        (sample(epoch=1.5), "epoch is 1.5"),
        (sample(epoch=10**12), "epoch is 1000000000000"),
        (sample(total_time="1 s"), "total_time is '1 s', not a number of seconds"),
        (sample(total_time=-1), "total_time is -1"),
        (sample(total_time=float("nan")), "total_time is nan"),
        (sample(error=[1]), "error is .1., not an object or text"),
        (sample(model_usage=[7]), "model_usage is .7., not an object"),
        (sample(model_usage={"m": 7}), "model_usage: m is 7, not an object"),
        (sample(model_usage={"m": {"input_tokens": "many"}}), "input_tokens of m is 'many'"),
        (sample(model_usage={"m": {"output_tokens": -1}}), "output_tokens of m is -1, not a whole number"),
        (sample(scores=[1]), "scores is .1., not an object"),
        (sample(value="good"), "told: 'good' is no score; use a scorer"),
        (sample(value=float("inf")), "told: inf is no score"),
        (sample(value=10**400), "told: 10+ is no score"),
        (sample(value={"a": {"b": 1}}), "told.a: .* is no score"),
        (sample(value=7), r"told is 7.0, but a score lies in \[0, 1\]; put a scorer first"),
    ],
)  # fmt: skip
def test_a_value_of_an_odd_type_is_named(tmp_path: Path, broken: object, message: str) -> None:
    log = log_of(sample(0), broken)
    with pytest.raises(TableError, match=rf"run\.json: sample 1: .*{message}") as told:
        list(read_inspect(written(tmp_path / "run.json", log), None))
    assert any(remedy in str(told.value) for remedy in ("correct the log", "give a log", "scorer"))


@pytest.mark.parametrize("broken", [3, sample(epoch="x"), sample(value="good")])
def test_a_broken_member_of_an_archive_is_named(tmp_path: Path, broken: object) -> None:
    with pytest.raises(TableError, match=r"run\.eval: samples/1_epoch_1\.json: .*;"):
        list(read_inspect(packed(tmp_path / "run.eval", log_of(sample(0), broken)), None))


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (log_of(sample(), model=None), "model, task or run_id"),
        (log_of(sample(), task=["t"]), "model, task or run_id"),
        (log_of(sample(), run_id=3), "model, task or run_id"),
        ({**log_of(), "samples": {"a": 1}}, "samples is no list"),
        (log_of(sample(scores={})), "no sample is scored; score the log"),
        ({"eval": 3}, "has no eval section"),
    ],
)
def test_a_broken_log_is_named(tmp_path: Path, log: object, message: str) -> None:
    with pytest.raises(TableError, match=rf"run\.json: .*{message}"):
        list(read_inspect(written(tmp_path / "run.json", log), None))


def test_archives_that_are_cut_are_named(tmp_path: Path) -> None:
    whole = packed(tmp_path / "run.eval", log_of(sample(0))).read_bytes()
    entry = whole.index(b"PK\x01\x02")
    (tmp_path / "index.eval").write_bytes(whole[:entry] + b"XX" + whole[entry + 2 :])
    with pytest.raises(TableError, match=r"index\.eval: cannot be read .*copy the log again"):
        list(read_inspect(tmp_path / "index.eval", None))
    (tmp_path / "body.eval").write_bytes(whole[:50] + b"\xff" * 9 + whole[59:])
    with pytest.raises(TableError, match=r"body\.eval: header\.json cannot be read"):
        list(read_inspect(tmp_path / "body.eval", None))


@pytest.mark.parametrize(
    ("value", "number"),
    [("C", 1), ("I", 0), ("P", 0.5), ("N", 0), (True, 1), ("yes", 1), ("False", 0), ("0.25", 0.25), (1, 1)],
)  # fmt: skip
def test_a_score_reads_as_inspect_reads_it(tmp_path: Path, value: object, number: float) -> None:
    rows = rows_of(written(tmp_path / "run.json", log_of(sample(value=value))), out=tmp_path)
    assert [(r["value"], r["error"]) for r in rows] == [(number, None)]


def test_the_tasks_first_scorer_is_the_score(tmp_path: Path) -> None:
    scores = {"length": {"value": 12}, "told": {"value": [1, 0]}}
    log = log_of(sample(scores=scores), scorers=[{"name": "own/told"}, {"name": "own/length"}])
    rows = rows_of(written(tmp_path / "run.json", log), out=tmp_path)
    assert {(r["metric"], r["value"], r["scorer"]) for r in rows} == {
        ("score", 1.0, "inspect:told.0"),
        ("told.1", 0.0, "inspect:told.1"),
        ("length", 12.0, "inspect:length"),
    }


def test_a_second_scorer_called_score_does_not_clash(tmp_path: Path) -> None:
    log = log_of(sample(scores={"told": {"value": 1}, "score": {"value": 7}}))
    rows = rows_of(written(tmp_path / "run.json", log), out=tmp_path)
    assert {r["metric"]: r["value"] for r in rows} == {"score": 1.0, "inspect:score": 7.0}


def test_tokens_that_nobody_counted_are_unknown(tmp_path: Path) -> None:
    usage = {"a": {"input_tokens": 2, "output_tokens": 1}, "b": {"input_tokens": None, "output_tokens": 4}}
    rows = rows_of(written(tmp_path / "run.json", log_of(sample(model_usage=usage))), out=tmp_path)
    assert [(r["prompt_tokens"], r["completion_tokens"]) for r in rows] == [(None, 5)]


def test_numbered_samples_join_on_the_question(tmp_path: Path) -> None:
    first = log_of(sample(1, input="a"), sample(2, input="b"))
    other = log_of(sample(1, 0, input="b"), sample(2, 1, input="a"), model="n")
    files = [written(tmp_path / f"{n}.json", log) for n, log in enumerate((first, other))]
    told = {(r["model"], r["example_id"]): r["value"] for r in rows_of(*files, out=tmp_path)}
    assert told == {("m", "t/1"): 1, ("m", "t/2"): 1, ("n", "t/1"): 1, ("n", "t/2"): 0}


@pytest.mark.parametrize("ids", [("x", "y"), (1, 2)])
def test_samples_that_ask_the_same_stay_apart(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    log = [log_of(*(sample(each, n, input="same") for n, each in enumerate(ids)), model=m) for m in "mn"]
    log[1]["samples"].reverse()
    files = [written(tmp_path / f"{n}.json", each) for n, each in enumerate(log)]
    told = {(r["model"], r["example_id"]): r["value"] for r in rows_of(*files, out=tmp_path)}
    assert told == {(m, f"t/{each}"): n for m in "mn" for n, each in enumerate(ids)}


def test_a_run_over_a_part_joins_by_name(tmp_path: Path) -> None:
    logs = (
        log_of(*(sample(each, input="same") for each in "xy")),
        log_of(sample("y", input="same"), model="n"),
    )
    files = [written(tmp_path / f"{n}.json", log) for n, log in enumerate(logs)]
    told = {(r["model"], r["example_id"]) for r in rows_of(*files, out=tmp_path)}
    assert told == {("m", "t/x"), ("m", "t/y"), ("n", "t/y")}


def test_one_name_with_two_questions_is_refused(tmp_path: Path) -> None:
    logs = (log_of(sample("x", input="a")), log_of(sample("x", input="b"), model="n"))
    files = [written(tmp_path / f"{n}.json", log) for n, log in enumerate(logs)]
    with pytest.raises(TableError, match="'t/x' is two different questions"):
        rows_of(*files, out=tmp_path)
