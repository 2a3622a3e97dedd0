"""What all importers share: equal questions under several ids, and answers that stand twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import TableError
from modelyard.results.importers import Record, write_import
from modelyard.results.importers.table import read_csv_table
from modelyard.results.outcomes import load_prompts, load_results

HEADER = "model,example_id,prompt,score,cost_usd,sample,metric\n"


def stored(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = load_results(out / "results.parquet").to_pylist()
    return rows


def imported(folder: Path, *lines: str, header: str = HEADER) -> list[dict[str, Any]]:
    path = folder / "t.csv"
    path.write_text(header + "".join(f"{line}\n" for line in lines))
    write_import(read_csv_table(path), folder)
    return stored(folder)


def keys_of(rows: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(row["model"], row["example_id"], row["sample"]) for row in rows]


def test_live_answers_that_repeat_a_prompt_are_samples_in_the_order_of_rows(tmp_path: Path) -> None:
    header = "model,example_id,prompt,score,cost_usd\n"
    lines = [
        "m,r1,hi,1,0.1",
        "m,r2,bye,0,0.2",
        "n,r3,hi,0,0.3",
        "m,r4,hi,0,0.4",
        "n,r5,hi,1,",
        "m,r6,hi,1,0.6",
    ]
    rows = imported(tmp_path, *lines, header=header)
    assert keys_of(rows) == [
        ("m", "r1", 0), ("m", "r2", 0), ("n", "r1", 0), ("m", "r1", 1), ("n", "r1", 1), ("m", "r1", 2),
    ]  # fmt: skip
    assert [(row["value"], row["cost_usd"]) for row in rows] == [
        (1, 0.1), (0, 0.2), (0, 0.3), (0, 0.4), (1, None), (1, 0.6),
    ]  # fmt: skip
    prompts = load_prompts(tmp_path / "prompts.parquet").to_pylist()
    assert {row["example_id"]: row["text"] for row in prompts} == {"r1": "hi", "r2": "bye"}


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        (["a 0", "b 0", "a 1", "b 1"], [0, 2, 1, 3]),
        (["a 0", "b 0", "c 0", "a 2"], [0, 1, 3, 2]),
        (["a 4", "b 4", "b 5"], [4, 0, 1]),
        (["a 0", "b 1", "c 2"], [0, 1, 2]),
        (["a 3", "a 1"], [3, 1]),
    ],
)
def test_the_first_id_keeps_its_samples_and_the_others_get_what_is_free(
    tmp_path: Path, given: list[str], numbers: list[int]
) -> None:
    pairs = [each.split() for each in given]
    rows = imported(tmp_path, *(f"m,{known},same,1,,{sample},score" for known, sample in pairs))
    assert keys_of(rows) == [("m", "a", number) for number in numbers]


def test_all_metrics_of_an_answer_have_one_sample(tmp_path: Path) -> None:
    """The first answer has no confidence, so that its metric begins with the second one's."""
    lines = ["m,a,same,1,,0,score", "m,b,same,0,,0,score", "m,b,same,0.5,,0,confidence"]
    rows = imported(tmp_path, *lines)
    assert [(row["metric"], row["sample"]) for row in rows] == [("score", 0), ("score", 1), ("confidence", 1)]


def test_the_first_id_is_each_models_own(tmp_path: Path) -> None:
    """The other model was asked in another order: the id that names the example is not its first."""
    lines = ["m,a,same,1,,0,score", "m,b,same,1,,0,score", "n,b,same,1,,3,score", "n,a,same,1,,0,score"]
    assert keys_of(imported(tmp_path, *lines)) == [("m", "a", 0), ("m", "a", 1), ("n", "a", 3), ("n", "a", 0)]


@pytest.mark.parametrize("prompt", ["same", ""])
@pytest.mark.parametrize("metric", ["score", "confidence"])
def test_an_answer_that_stands_twice_under_one_id_is_refused(
    tmp_path: Path, prompt: str, metric: str
) -> None:
    lines = ["m,a,same,1,,0,score", f"m,b,{prompt},1,,1,{metric}", f"m,b,{prompt},1,,1,{metric}"]
    told = (
        rf"t\.csv: line 4: rows of model 'm', example 'b', sample 1, metric '{metric}' stand more than once"
    )
    with pytest.raises(TableError, match=told):
        imported(tmp_path, *lines)
    assert not (tmp_path / "results.parquet").exists()


def test_a_sample_that_is_not_told_is_the_first(tmp_path: Path) -> None:
    rows = [{"model": "m", "example_id": "a", "value": 1.0}, {"model": "m", "example_id": "a", "value": 0.0}]
    for more in ({}, {"sample": 0}, {"metric": "score"}):
        records = [Record(row=rows[0], place="x"), Record(row={**rows[1], **more}, place="y")]
        with pytest.raises(TableError, match="y: rows of model 'm', example 'a', sample 0, metric 'score'"):
            write_import(records, tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    answers=st.lists(
        st.tuples(st.sampled_from("mn"), st.sampled_from("abcd"), st.integers(0, 3)), unique=True, min_size=1
    )
)
def test_no_answer_is_lost(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[str, str, int]]
) -> None:
    """Ids a and b ask the same, c and d too; `latency_s` tells which answer a row was."""
    out = tmp_path_factory.mktemp("out")
    records = [
        Record(
            row={"model": m, "example_id": known, "sample": n, "value": 1.0, "latency_s": float(at)},
            prompt="one" if known in "ab" else "two",
        )
        for at, (m, known, n) in enumerate(answers)
    ]
    write_import(records, out)
    rows = stored(out)
    assert [row["latency_s"] for row in rows] == list(range(len(answers)))
    assert len(set(keys_of(rows))) == len(rows)
    for model, asked in {(m, known in "ab") for m, known, _ in answers}:
        own = [
            (a, row) for a, row in zip(answers, rows, strict=True) if (a[0], a[1] in "ab") == (model, asked)
        ]
        assert len({row["example_id"] for _, row in own}) == 1
        assert all(row["sample"] == a[2] for a, row in own if a[1] == own[0][0][1])
