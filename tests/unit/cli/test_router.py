"""The routing commands, from a table to a decision."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.results.outcomes import write_prompts

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


def test_a_choice_is_explained(call, router, tmp_path):
    asked = ("router", "explain", "compiler loop", "--neighbours", 3)
    told = json.loads(call(*asked, "--json").output)
    assert [row["name"] for row in told["standings"]] == ["coder", "cheap"]
    assert {row["answers"] for row in told["standings"]} == {40}
    assert [near["text"] for near in told["neighbours"]] == [None] * 3
    shown = call(*asked).output
    assert "40 of 80 fit prompts" in shown and "coder: the least predicted error; its score is 0." in shown
    assert WORDS[1] not in shown
    known = (*asked, "--results", tmp_path / "answers")
    assert call(*known).output.count(WORDS[1]) == 3
    assert all(WORDS[1] in near["text"] for near in json.loads(call(*known, "--json").output)["neighbours"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--deny", "coder"), "cheap: the least predicted error; no other model could be chosen"),
        (
            ("--quality", "0"),
            "cheap: the cheapest with a predicted quality of 0; it costs 0.001 USD, coder 0.02",
        ),
        (("--budget-usd", "0.01"), "over the budget"),
        (("--lambda", "2"), "the least error + 2 * cost relative to the dearest"),
    ],
)
def test_why_a_model_wins(call, router, options, told):
    assert told in call("router", "explain", "compiler loop", *options).output


def test_texts_of_other_prompts_do_not_explain(call, router, table, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_prompts(other / "prompts.parquet", [{"example_id": f"q{i}", "text": "else"} for i in range(80)])
    told = call("router", "explain", "compiler loop", "--results", other)
    assert isinstance(told.exception, RoutingError) and "is another prompt here" in str(told.exception)


@pytest.fixture
def held(table, tmp_path):
    return table(tmp_path / "held", ["cheap", "coder", "poet"], range(100, 300))


def test_two_routers_are_compared(call, router, held, table, tmp_path):
    few = table(tmp_path / "new", ["poet"], range(60))
    (tmp_path / "more").mkdir()
    for file in router.iterdir():
        (tmp_path / "more" / file.name).write_bytes(file.read_bytes())
    call("onboard", "poet", "--results", few, "--router", tmp_path / "more")
    asked = ("router", "compare", router, tmp_path / "more", "--results", held, "--draws", 300)
    told = json.loads(call(*asked, "--json").output)
    assert (told["a"]["models"], told["b"]["models"]) == (["cheap", "coder"], ["cheap", "coder", "poet"])
    assert told["difference"]["low"] > 0.05 and told["b"]["area"] > told["a"]["area"]
    assert told["difference"]["area"] == pytest.approx(told["b"]["area"] - told["a"]["area"], abs=1e-3)
    assert [row["lambda"] for row in told["a"]["lambdas"]] == [0.0, 0.1, 0.3, 1.0, 3.0]
    assert told["dearest_usd"] == pytest.approx(0.02) and told["cheapest"] == pytest.approx(0.05)
    assert "area of B - A: +0." in call(*asked).output
    same = call("router", "compare", router, router, "--results", held).output
    assert "area of B - A: +0.0000, 95 % interval +0.0000 to +0.0000" in same


def test_areas_are_compared_over_costs_that_both_can_answer_at(call, router, held, table, tmp_path):
    dear = table(tmp_path / "dear", ["poet", "coder"], range(80))
    call("router", "fit", "--results", dear, "--clusters", 2, "--embedder", "hashing", "--output", "other")
    told = json.loads(call("router", "compare", router, "other", "--results", held, "--json").output)
    assert told["cheapest"] == pytest.approx(0.5), "the poet is the cheapest of the second"


def test_pictures_and_their_tables(call, router, held, tmp_path):
    shown = call("router", "map", router, "--lambda", 0.1, "--plot", "map.svg").output
    assert [line.split()[-1] for line in shown.splitlines()[1:]] in (["cheap", "coder"], ["coder", "cheap"])
    told = json.loads(call("router", "map", router, "--lambda", 100, "--json").output)["clusters"]
    assert [(row["prompts"], row["model"]) for row in told] == [(40, "cheap")] * 2
    shown = call("router", "profiles", router, "--plot", "profiles.png").output
    assert shown.splitlines()[0].split() == ["model", "0", "1"] and "*" not in shown
    assert json.loads(call("router", "profiles", router, "--json").output)["cheap"]["answers"] == [40, 40]
    call("router", "curve", router, "--results", held, "--plot", "curve.svg")
    starts = {"map.svg": b"<svg", "curve.svg": b"<svg", "profiles.png": b"\x89PNG"}
    assert {name: (tmp_path / name).read_bytes()[: len(start)] for name, start in starts.items()} == starts


def test_clusters_without_answers_are_marked(call, router, table, tmp_path):
    poems = table(tmp_path / "poems", ["poet"], range(0, 40, 2))
    call("onboard", "poet", "--results", poems)
    lines = call("router", "profiles", router).output.splitlines()
    assert [line.count("*") for line in lines] == [0, 0, 0, 1]


def test_what_a_day_costs(call, router, held, tmp_path):
    asked = ("router", "cost", router, "--results", held, "--requests-per-day", 1000)
    told = json.loads(call(*asked, "--lambda", 100, "--lambda", 0, "--json", "--plot", "cost.svg").output)
    assert [row["lambda"] for row in told["router"]] == [0.0, 100.0]
    assert told["router"][1]["usd_a_day"] == pytest.approx(1.0)
    models = {row["model"]: row for row in told["models"]}
    assert models["coder"]["usd_a_day"] == pytest.approx(20.0) and "poet" not in models
    assert models["cheap"]["quality"] == told["router"][1]["quality"]
    assert (tmp_path / "cost.svg").exists()
    shown = call(*asked).output
    assert "USD a day" in shown and "0.03 " in shown and "20.00" in shown


@pytest.mark.parametrize("name", ["map", "profiles", "curve", "cost"])
def test_a_plot_without_a_known_end_is_refused_at_once(call, tmp_path, name):
    more = {"curve": ("--results", "x"), "cost": ("--results", "x", "--requests-per-day", 1)}.get(name, ())
    told = call("router", name, "nowhere", "--plot", "out.pdf", *more)
    assert isinstance(told.exception, RoutingError) and "a plot ends in" in str(told.exception)


def test_facts_are_declared_and_asked_for(call, router):
    shown = call("router", "facts", router, "coder", "--tools", "--context-tokens", 8000, "--latency-s", 1.5)
    assert [line.split() for line in shown.output.splitlines()[1:]] == [
        ["coder", "8000", "yes", "-", "-", "1.5", "-"]
    ]
    told = json.loads(call("router", "facts", router, "--json").output)
    assert told["cheap"] == dict.fromkeys(told["cheap"]) and told["coder"]["tools"] is True
    assert json.loads(call("route", "rhyme", "--json", "--tools", "--latency-s", 2).output)[
        "scores"
    ].keys() == {"coder"}
    lost = call("route", "rhyme", "--vision")
    assert isinstance(lost.exception, RoutingError) and "vision is not known of cheap, coder" in str(
        lost.exception
    )
    shown = call("router", "explain", "rhyme", "--context-tokens", 9000, "--deny", "cheap")
    assert "too much for coder" in str(shown.exception)
    assert "the use of tools is not known of it" in call("router", "explain", "rhyme", "--tools").output


def test_facts_of_nobody_are_refused(call, router):
    assert isinstance(call("router", "facts", router, "nobody", "--tools").exception, RoutingError)
    assert isinstance(call("router", "facts", router, "nobody").exception, RoutingError)
    assert "name the model" in call("router", "facts", router, "--tools").output


def test_a_conversation_stays_and_new_models_are_tried(call, router):
    stays = json.loads(
        call("route", "compiler loop", "--json", "--previous", "cheap", "--margin", 0.9).output
    )
    assert stays["chosen"] == "cheap" and "'cheap' answered before" in stays["reason"]
    asked = ("route", "compiler loop", "--json", "--explore", 1, "--new-below", 100)
    tried = [json.loads(call(*asked, "--request-id", f"r{i}").output) for i in range(12)]
    assert {each["chosen"] for each in tried} == {"cheap", "coder"}
    assert {(each["explored"], each["propensity"]) for each in tried} == {(True, 0.5)}
    assert tried[0] == json.loads(call(*asked, "--request-id", "r0").output)
    lost = call(*asked)
    assert isinstance(lost.exception, RoutingError) and "has no id" in str(lost.exception)


def test_clusters_may_be_learned_from_errors(call, table, tmp_path):
    answers = table(tmp_path / "answers", ["cheap", "coder"], range(80))
    fit = ("router", "fit", "--results", answers, "--clusters", 2, "--embedder", "hashing")
    assert call(*fit, "--learned-map", "--output", "learned").exit_code == 0
    assert call(*fit, "--output", "plain").exit_code == 0
    assert (
        json.loads(call("route", "compiler loop", "--router", "learned", "--json").output)["chosen"]
        == "coder"
    )
    one, other = ((tmp_path / name / "tensors.safetensors").read_bytes() for name in ("learned", "plain"))
    assert one != other


def test_drift_of_prompts_is_told_and_has_a_status(call, router, table, tmp_path):
    same = table(tmp_path / "same", ["cheap"], range(100, 160))
    told = call("router", "drift", router, "--prompts", same)
    assert told.exit_code == 0 and "60 prompts: no drift" in told.output, told.output
    poems = table(tmp_path / "poems", ["cheap"], range(100, 200, 2))
    found = call("router", "drift", router, "--prompts", poems, "--json")
    assert found.exit_code == 3 and json.loads(found.output)["alarm"]
    assert "DRIFT" in call("router", "drift", router, "--prompts", poems).output
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"prompt": f"{WORDS[i % 2]} {i}"}) + "\n" for i in range(100, 160)))
    assert call("router", "drift", router, "--prompts", log, "--json").output == (
        call("router", "drift", router, "--prompts", same, "--json").output
    )


@pytest.mark.parametrize("name", ["live{:04d}", "live{}", "-{:04d}"])
def test_answers_are_learned_in_the_order_of_the_rows(call, router, tmp_path, name):
    """Right for 200 answers, then wrong for 200, and dearer: whatever the ids, it is wrong now."""
    ids = [name.format(400 - i if name[0] == "-" else i) for i in range(400)]
    lines = [
        f"coder,{each},function compiler pointer loop {i},{int(i < 200)},{0.02 if i < 200 else 0.05}"
        for i, each in enumerate(ids)
    ]
    path = tmp_path / "live.csv"
    path.write_text("model,example_id,prompt,score,cost_usd\n" + "\n".join(lines) + "\n")
    assert call("import", "csv", path, "--output", "live").exit_code == 0
    assert call("router", "learn", router, "--results", "live", "--half-life", 50).exit_code == 0
    coder = json.loads(call("route", "compiler loop", "--allow", "coder", "--json").output)
    assert coder["predicted_error"] > 0.85 and coder["cost_usd"] == pytest.approx(0.05, rel=0.1)


def test_answers_to_one_prompt_are_learned_each_in_its_turn(call, router, tmp_path):
    """Right 200 times and then wrong 200 times on the very same prompt: neither a mean, nor one answer."""
    lines = [f"coder,r{i},compiler loop,{int(i < 200)},{0.02 if i < 200 else 0.05}" for i in range(400)]
    path = tmp_path / "live.csv"
    path.write_text("model,example_id,prompt,score,cost_usd\n" + "\n".join(lines) + "\n")
    made = call("import", "csv", path, "--output", "live")
    assert made.exit_code == 0, made.exception
    told = call("router", "learn", router, "--results", "live", "--half-life", 50, "--json")
    assert [(m["model"], m["answers"]) for m in json.loads(told.output)["models"]] == [("coder", 400)]
    coder = json.loads(call("route", "compiler loop", "--allow", "coder", "--json").output)
    assert coder["predicted_error"] > 0.85 and coder["cost_usd"] == pytest.approx(0.05, rel=0.1)


def test_a_router_learns_from_answers_in_service(call, router, table, tmp_path):
    before = json.loads(call("route", "rhyme of a sonnet", "--json").output)
    path = tmp_path / "live.csv"
    lines = [f"coder,live{i},verse rhyme sonnet poem {i},1,0.02" for i in range(300)]  # it learned to rhyme
    path.write_text("model,example_id,prompt,score,cost_usd\n" + "\n".join(lines) + "\n")
    assert call("import", "csv", path, "--output", "live").exit_code == 0
    told = call("router", "learn", router, "--results", "live", "--half-life", 100)
    assert told.exit_code == 0 and "coder" in told.output, told.exception
    after = json.loads(call("route", "rhyme of a sonnet", "--json").output)
    assert before["chosen"] == "cheap" and after["chosen"] == "coder" and after["predicted_error"] < 0.2
    assert json.loads(call("route", "compiler loop", "--json").output)["chosen"] == "coder"
    poems = table(tmp_path / "poems", ["poet"], range(300, 310))
    refused = call("router", "learn", router, "--results", poems)
    assert isinstance(refused.exception, RoutingError) and "give answers of models in the router" in str(
        refused.exception
    )
