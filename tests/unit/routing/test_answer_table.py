"""Answers out of the results table: samples, failures, what was never asked, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.core.errors import RoutingError, TableError
from modelyard.results.outcomes import write_prompts, write_results
from modelyard.routing.answer_table import read_answer_table, read_confidences, read_turns

NAN = float("nan")


def written(folder, rows, prompts):
    """A folder of both tables; rows are model, example, value, cost, and more columns."""
    folder.mkdir()
    write_results(
        folder / "results.parquet",
        [{"model": m, "example_id": e, "value": v, "cost_usd": c, **more} for m, e, v, c, more in rows],
    )
    write_prompts(folder / "prompts.parquet", [{"example_id": e, "text": t} for e, t in prompts.items()])
    return folder


def row(model, example, value, cost=None, **more):
    return model, example, value, cost, more


def test_rows_in_any_order(tmp_path):
    rows = [row("b", "2", 0.25, 0.5), row("a", "1", 0.0, error="no answer"), row("a", "2", 1.0, 0.1)]
    table = read_answer_table([written(tmp_path / "r", rows, {"1": "one", "2": "two"})])
    assert (table.answers.models, table.answers.examples) == (("a", "b"), ("1", "2"))
    assert table.prompts == ("one", "two")
    np.testing.assert_array_equal(table.answers.errors_mn, [[1.0, 0.0], [NAN, 0.75]])
    np.testing.assert_array_equal(table.answers.cost_usd_mn, [[NAN, 0.1], [NAN, 0.5]])


def test_turns_are_the_order_of_the_rows_and_of_the_folders(tmp_path):
    rows = [row("a", "9", 1.0), row("b", "1", 0.0), row("a", "1", 1.0), row("a", "9", 0.0, sample=1)]
    folders = [
        written(tmp_path / "r", rows, {"1": "one", "9": "nine"}),
        written(tmp_path / "s", [row("a", "5", 1.0)], {"5": "five"}),
    ]
    for given, of_a in ((folders, ["9", "1", "9", "5"]), (folders[::-1], ["5", "9", "1", "9"])):
        answers = read_answer_table(given).answers
        turns = read_turns(given, answers)
        assert [answers.examples[i] for i in turns["a"].columns_t] == of_a
        assert [answers.examples[i] for i in turns["b"].columns_t] == ["1"]


def test_a_turn_is_one_row_and_no_mean(tmp_path):
    rows = [
        row("a", "2", 1.0, 0.5), row("b", "1", 0.25), row("a", "1", 0.5, error="cut off"),
        row("a", "2", 7.0, 9.0, metric="length"), row("a", "2", 0.0, 0.1, sample=1),
        row("b", "1", 1.0, 0.3, sample=4), row("a", "2", 0.0, sample=2),
    ]  # fmt: skip
    folder = written(tmp_path / "r", rows, {"1": "one", "2": "two"})
    answers = read_answer_table([folder]).answers
    turns = read_turns([folder], answers)
    assert set(turns) == {"a", "b"}
    np.testing.assert_array_equal(turns["a"].columns_t, [1, 0, 1, 1])
    np.testing.assert_array_equal(turns["a"].errors_t, [0.0, 0.5, 1.0, 1.0])
    np.testing.assert_array_equal(turns["a"].costs_usd_t, [0.5, NAN, 0.1, NAN])
    np.testing.assert_array_equal(turns["b"].columns_t, [0, 0])
    np.testing.assert_array_equal(turns["b"].errors_t, [0.75, 0.0])
    np.testing.assert_array_equal(turns["b"].costs_usd_t, [NAN, 0.3])
    assert list(read_turns([folder], answers.of_models([1]))) == ["b"]


def test_a_table_may_be_named_by_its_path_and_its_prompts_lie_beside_it(tmp_path):
    folder = written(tmp_path / "r", [row("a", "1", 1.0, 0.2)], {"1": "one"})
    (folder / "results.parquet").rename(folder / "mine.parquet")
    assert read_answer_table([folder / "mine.parquet"]).prompts == ("one",)
    with pytest.raises(TableError, match=r"r/results\.parquet: there is no such file"):
        read_answer_table([folder])


def test_confidences_stand_beside_the_scores(tmp_path):
    rows = [
        row("a", "1", 1.0, 0.2), row("a", "1", 0.5, metric="confidence"), row("a", "2", 1.0),
        row("b", "1", 0.0), row("b", "1", 0.25, metric="confidence"),
        row("b", "1", 0.0, sample=1), row("b", "1", 0.75, metric="confidence", sample=1),
    ]  # fmt: skip
    folder = written(tmp_path / "r", rows, {"1": "one", "2": "two"})
    answers = read_answer_table([folder]).answers
    np.testing.assert_array_equal(read_confidences([folder], answers), [[0.5, NAN], [0.5, NAN]])
    fewer = answers.of_models([1]).to_prompts([0])
    np.testing.assert_array_equal(read_confidences([folder], fewer), [[0.5]])


def test_samples_are_averaged_and_other_metrics_left_out(tmp_path):
    rows = [row("a", "1", 1.0, 0.2), row("a", "1", 0.0, 0.4, sample=1), row("a", "1", 7.0, metric="length")]
    table = read_answer_table([written(tmp_path / "r", rows, {"1": "one"})])
    np.testing.assert_allclose(table.answers.errors_mn, [[0.5]])
    np.testing.assert_allclose(table.answers.cost_usd_mn, [[0.3]])


def test_several_folders_are_one_pool(tmp_path):
    one = written(tmp_path / "one", [row("a", "1", 1.0)], {"1": "one"})
    two = written(tmp_path / "two", [row("b", "1", 0.0), row("b", "2", 1.0)], {"1": "one", "2": "two"})
    table = read_answer_table([one, two])
    np.testing.assert_array_equal(table.answers.errors_mn, [[0.0, NAN], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("rows", "prompts", "told"),
    [
        ([row("a", "1", 1.0)], {"1": "one"}, "model 'a', example_id '1', sample 0 stands more than once"),
        ([row("b", "1", 1.0)], {"1": "other"}, "'1' is another prompt"),
        ([row("b", "2", 1.0)], {"1": "one"}, "no prompt of '2'"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, rows, prompts, told):
    one = written(tmp_path / "one", [row("a", "1", 1.0)], {"1": "one"})
    with pytest.raises(RoutingError, match=told):
        read_answer_table([one, written(tmp_path / "two", rows, prompts)])


def test_tables_that_are_not_there_or_have_no_score(tmp_path):
    with pytest.raises(TableError, match="there is no such file"):
        read_answer_table([tmp_path])
    folder = written(tmp_path / "r", [row("a", "1", 7.0, metric="length")], {"1": "one"})
    with pytest.raises(RoutingError, match="no row of the metric score"):
        read_answer_table([folder])
