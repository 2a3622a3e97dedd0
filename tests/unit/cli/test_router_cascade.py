"""`modelyard router cascade`, on written results with confidences."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.results.outcomes import write_prompts, write_results


@pytest.fixture
def results(tmp_path):
    """Writes results of a cheap model that knows when it is right, and of a dear one."""

    def write(name, numbers, *, confident=True):
        chance, rows = np.random.default_rng(len(numbers)), []
        for i in numbers:
            sure = chance.uniform(0.1, 0.99)
            for model, right, usd in (
                ("cheap", chance.random() < sure, 0.001),
                ("dear", chance.random() < 0.7, 0.01),
            ):
                whose = {"model": model, "example_id": f"q{i}"}
                rows.append({**whose, "value": float(right), "cost_usd": usd})
            if confident:
                rows.append({"model": "cheap", "example_id": f"q{i}", "metric": "confidence", "value": sure})
        folder = tmp_path / name
        folder.mkdir()
        write_results(folder / "results.parquet", rows)
        prompts = ({"example_id": f"q{i}", "text": f"question number {i}"} for i in numbers)
        write_prompts(folder / "prompts.parquet", prompts)
        return folder

    return write


def test_a_cascade_is_calibrated_saved_and_measured(call, results, tmp_path):
    fit, held = results("fit", range(400)), results("held", range(400, 900))
    fitted = call("router", "fit", "--results", fit, "--clusters", 1, "--embedder", "hashing")
    assert fitted.exit_code == 0, fitted.exception
    asked = ("router", "cascade", "--first", "cheap", "--then", "dear", "--results", fit, "--held-out", held)
    record = json.loads(call(*asked, "--json").output)
    assert record["calibration"]["wrong at confidence 0.9"] == pytest.approx(0.1, abs=0.06)
    told = record["held_out"]
    assert told["prompts"] == 500 and told["without_confidence"] == 0
    assert told["peak"] > max(told["first"], told["then"]) + 0.02
    costs = [row["cost_usd"] for row in told["lambdas"]]
    assert costs == sorted(costs) and 0.001 <= costs[0] < costs[-1] <= 0.011
    assert json.loads((tmp_path / "cascade.json").read_text())["first"] == "cheap"
    assert "peak of the cascade" in call(*asked).output
    overlapping = call(*asked[:-1], fit)
    assert isinstance(overlapping.exception, RoutingError) and "no held-out prompt" in str(
        overlapping.exception
    )


def test_results_without_confidences_and_unknown_models_are_refused(call, results):
    fit = results("fit", range(50), confident=False)
    refused = call("router", "cascade", "--first", "cheap", "--then", "dear", "--results", fit)
    assert "0 answers have a confidence" in str(refused.exception)
    lost = call("router", "cascade", "--first", "cheap", "--then", "huge", "--results", fit)
    assert "has no answer of huge" in str(lost.exception)
