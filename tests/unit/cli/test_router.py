"""The routing commands, from a table to a decision."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from modelyard.core.errors import RoutingError

RATES = {"poet": (0.1, 0.8), "coder": (0.8, 0.1), "cheap": (0.6, 0.6)}
PRICES = {"poet": 0.01, "coder": 0.02, "cheap": 0.001}
WORDS = ("verse rhyme sonnet poem", "function compiler pointer loop")


@pytest.fixture
def table(call):
    """Writes answers and imports them."""

    def write(path, names, numbers):
        write_csv(path.with_suffix(".csv"), names, numbers)
        made = call("import", "csv", path.with_suffix(".csv"), "--output", path)
        assert made.exit_code == 0, made.exception
        return path

    return write


def write_csv(path, names, numbers):
    chance = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["model", "example_id", "prompt", "score", "cost_usd"])
        for name in names:
            for i in numbers:
                score = int(chance.random() >= RATES[name][i % 2])
                rows.writerow([name, f"q{i}", f"{WORDS[i % 2]} {i}", score, PRICES[name]])


@pytest.fixture
def router(call, table, tmp_path):
    answers = table(tmp_path / "answers", ["cheap", "coder"], range(80))
    made = call("router", "fit", "--results", answers, "--clusters", 2, "--embedder", "hashing")
    assert made.exit_code == 0, made.exception
    return tmp_path / "router"


def test_from_a_table_to_a_decision(call, router, table, tmp_path):
    few = table(tmp_path / "new", ["poet", "cheap"], range(30))
    assert "poet from 30 answers; now cheap, coder, poet" in call("onboard", "poet", "--results", few).output
    shown = json.loads(call("router", "show", router, "--json").output)
    assert [(m["name"], m["answers"]) for m in shown["models"]] == [
        ("cheap", 80), ("coder", 80), ("poet", 30),
    ]  # fmt: skip
    assert "poet" in call("router", "show", router).output
    assert call("route", "rhyme of a sonnet").output.startswith("poet: predicted error 0.")
    assert json.loads(call("route", "compiler loop", "--json").output)["chosen"] == "coder"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--lambda", "1000"), "cheap"),
        (("--lambda-usd", "100000"), "cheap"),
        (("--budget-usd", "0.005"), "cheap"),
        (("--quality", "0"), "cheap"),
        (("--deny", "coder"), "cheap"),
        (("--allow", "coder"), "coder"),
    ],
)
def test_what_is_asked_for_reaches_the_decision(call, router, options, name):
    assert json.loads(call("route", "compiler loop", "--json", *options).output)["chosen"] == name


def test_a_curve_on_held_out_answers(call, router, table, tmp_path):
    held = table(tmp_path / "held", ["cheap", "coder"], range(100, 200))
    told = json.loads(call("router", "curve", router, "--results", held, "--json").output)
    curves = told["curves"]
    assert (told["prompts"], told["left_out"]) == (100, 0)
    assert curves["oracle"]["area"] >= curves["router"]["area"] > curves["zero_router"]["area"]
    assert "zero_router" in call("router", "curve", router, "--results", held).output


def test_a_curve_on_fit_prompts_or_without_a_model_is_refused(call, router, table, tmp_path):
    seen = call("router", "curve", router, "--results", tmp_path / "answers")
    assert isinstance(seen.exception, RoutingError) and "was fitted on" in str(seen.exception)
    held = table(tmp_path / "held", ["cheap"], range(100, 120))
    lost = call("router", "curve", router, "--results", held)
    assert isinstance(lost.exception, RoutingError) and "no answer of coder" in str(lost.exception)


def test_a_model_without_rows_is_not_onboarded(call, router, table, tmp_path):
    told = call("onboard", "nobody", "--results", tmp_path / "answers")
    assert isinstance(told.exception, RoutingError) and "no row has the model 'nobody'" in str(told.exception)
