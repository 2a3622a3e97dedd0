"""A set of sums, a pool that adds, and evaluations of one by the other."""

from __future__ import annotations

import json
import os

import pytest

from modelyard.evaluation.evaluate import EvaluationOptions, evaluate, prepare
from modelyard.evaluation.interview import Surroundings
from modelyard.evaluation.pool import read_judge, read_pool
from modelyard.testing.openai_server import fake_server


@pytest.fixture
def sums(tmp_path):
    """Writes a set of sums; the last tenth is for the report."""

    def write(count):
        path = tmp_path / "sums.jsonl"
        rows = [
            {"id": f"q{i}", "prompt": f"What is {i} + 5?", "answers": [str(i + 5)], "scorer": "numeric",
             "split": "report" if i >= count * 0.9 else "fit", "group_id": f"g{i % 3}"}
            for i in range(count)
        ]  # fmt: skip
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def server(tmp_path):
    """A server that adds, as `running`; ended with the test."""
    with fake_server(tmp_path / "log.jsonl") as running:
        yield running


@pytest.fixture
def run(tmp_path, yard):
    """Evaluates entries of a pool on a set."""

    def one(path, *entries, output="out", stop=lambda: "", judge=None, **options):
        models = read_pool({"pool": list(entries)}, path=tmp_path / "yard.yaml")
        judge = read_judge({"judge": judge}, path=tmp_path / "yard.yaml")
        evaluation = prepare(path, models, EvaluationOptions(**options), judge)
        around = Surroundings(environment=dict(os.environ), stop=stop)
        return evaluate(yard, evaluation, tmp_path / output, around)

    return one
