"""`modelyard certify` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from modelyard.testing.openai_server import fake_server

YES, NO = "yes", "no"


@pytest.fixture
def files(tmp_path):
    """yard.yaml with recorded models of forty items, by what each gets wrong, and pack.jsonl."""

    def write(entries=(), **wrong):
        pool = [*entries]
        for name, missed in wrong.items():
            path = tmp_path / f"{name}.jsonl"
            lines = [{"example_id": f"q{i}", "text": NO if i in missed else YES} for i in range(40)]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            pool.append({"name": name, "engine": "replay", "answers": path.name})
        (tmp_path / "yard.yaml").write_text(yaml.safe_dump({"name": "small", "pool": pool}))
        items = [
            {"prompt_id": f"q{i}", "prompt": f"Is {i} so?", "scorer": {"id": "exact"}, "answers": [YES],
             "critical": i == 0}
            for i in range(40)
        ]  # fmt: skip
        (tmp_path / "pack.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        return ("certify", "--candidate", "new", "--baseline", "old", "--pack", "pack.jsonl")

    return write


def test_a_pass_is_a_table_for_people_and_a_record_for_machines(call, files):
    asked = files(old=range(1, 13), new=[39])
    done = call(*asked)
    assert done.exit_code == 0, done.output
    for part in (
        "new against old: 40 of 40 items, look 1 of 20", "wins 12   losses 1   ties 27 (27 both pass, 0 both",
        "difference +0.2750, 90 % interval", "better than the baseline: p ", "at 0.05, mcnemar_exact",
        "critical 1/1 (at least 0.050), new failures: none", "verdict: pass\n  - ", "paired_eval_report.json",
    ):  # fmt: skip
        assert part in done.stdout, part
    again = call(*asked, "--json")
    record = json.loads(again.stdout)
    tried = call(*asked, "--seed", "1")
    assert "warning: these models were compared on this pack 1 times before" in tried.stdout
    assert again.exit_code == 0 and record["before"] and not record["earlier"] and record["verdict"] == "pass"
    assert json.loads(Path(record["report"]).read_bytes())["id"] == record["id"]


def test_the_exit_status_tells_a_failure_from_what_is_not_proven(call, files):
    asked = files(old=[1], new=range(1, 20))
    failed = call(*asked)
    assert failed.exit_code == 4 and "verdict: fail" in failed.stdout
    asked = files(old=[1, 2], new=[1])
    unproven = call(*asked)
    assert unproven.exit_code == 5 and "verdict: inconclusive" in unproven.stdout
    assert "items needed: about" in unproven.stdout
    assert "Exit status: 0 pass, 4 fail, 5 inconclusive" in call("certify", "--help").stdout


def test_the_design_is_what_the_options_say(call, files):
    asked = files(old=[1, 2], new=[1, 3])
    told = ("--non-inferiority", "--margin", "0.1", "--alpha", "0.04", "--sequential", "--samples", "2")
    more = ("--losses-allowed", "3", "--seed", "7", "--iteration", "2", "--truncated", "score")
    record = json.loads(call(*asked, *told, *more, "--retire-after", "5", "--json").stdout)
    design = record["design"]
    assert (design["alternative"], design["margin"], design["nominal_alpha"], design["iteration"]) == (
        "non_inferiority", 0.1, 0.04, 2,
    )  # fmt: skip
    assert design["alpha"] == pytest.approx(0.04 * 6 / (3.141592653589793**2 * 4))
    assert (design["sequential"], design["samples"], design["losses_allowed"], design["seed"]) == (
        True, 2, 3, 7,
    )  # fmt: skip
    assert record["look"]["retired_at"] == 5 and record["decoding"]["truncated"] == "is scored"


@pytest.mark.parametrize("told", [("--margin", "0.1"), ("--non-inferiority",)])
def test_a_margin_and_its_claim_belong_together(call, files, told):
    refused = call(*files(old=[1], new=[2]), *told)
    assert refused.exit_code == 2 and "belong together" in refused.output


def test_a_dry_run_opens_and_sends_nothing(call, files, tmp_path):
    asked = files(old=[1, 2], new=[1])
    shown = call(*asked, "--dry-run")
    assert shown.exit_code == 0 and not (tmp_path / ".modelyard").exists()
    for part in ("nothing was sent", "40 items of certify, 1 critical, 40 clusters; 80 questions in all",
                 "better than the baseline, at 0.05 one-sided, method mcnemar_exact",
                 "on 20 % of the items, a truth of +0.176 is found with a chance of 80 %"):  # fmt: skip
        assert part in shown.output
    planned = json.loads(call(*asked, "--dry-run", "--json").stdout)
    assert planned["detectable"]["0.2"] == pytest.approx((1.6449 + 0.8416) * (0.2 / 40) ** 0.5, rel=1e-3)
    assert planned["id"] == json.loads(call(*asked, "--json").stdout)["id"]


def test_what_is_not_in_the_pool_or_the_yard_is_refused(call, files):
    asked = files(old=[1], new=[2])
    lost = call(*asked[:-1], "gone.jsonl")
    assert "gone.jsonl: cannot be read" in str(lost.exception)
    other = call("certify", "--candidate", "newer", "--baseline", "old", "--pack", "pack.jsonl")
    assert "newer" in str(other.exception) and "is not in the pool" in str(other.exception)
    assert "'gone' is not a run of" in str(call(*asked, "--run", "gone").exception)


def test_training_data_is_looked_through_and_told_of(call, files, tmp_path):
    asked = files(old=[1, 2], new=[1])
    (tmp_path / "train.txt").write_text("Is 3 so?\nand is 11 so, too?\n")
    done = call(*asked, "--training-data", "train.txt")
    assert "warning: 1 items stand in the training data, 0 more share words with it" in done.stdout
    refused = call(*asked, "--training-data", "train.txt", "--overlap", "refuse", "--seed", "1")
    assert "1 items stand in the training data" in str(refused.exception)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "more.jsonl").write_text(json.dumps(["Is 3 so?", "Is 4 so?"]) + "\n")
    whole = call(*asked, "--training-data", "data", "--seed", "2", "--json")
    assert json.loads(whole.stdout)["prompt_pack"]["overlap"]["exact"] == 2


def test_the_inputs_of_the_run_that_made_the_candidate_are_training_data(call, files, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text(json.dumps({"text": "Is 5 so?"}) + "\n")
    models = [{"name": "m", "train_cmd": "touch {model_name}", "inputs": ["data"]}]
    (tmp_path / "train.json").write_text(json.dumps({"models": models}))
    trained = call("train", "--config", "train.json", "--execute")
    assert trained.exit_code == 0, trained.output
    asked = files(old=[1, 2], new=[1])
    record = json.loads(call(*asked, "--run", "train", "--json").stdout)
    assert record["run_id"].startswith("train-")
    assert record["prompt_pack"]["overlap"]["exact"] == 1


def test_models_that_decode_unlike_are_told_of(call, files, tmp_path):
    new, old = (
        {"name": name, "engine": "command", "run": f"echo {said}"}
        for name, said in (("new", YES), ("old", NO))
    )
    alike = call(*files([new, old]))
    assert alike.exit_code == 0, alike.output
    assert "warning: the models do not decode alike" not in alike.stdout
    assert "new: 8 asked" in alike.stderr
    with fake_server(tmp_path / "log.jsonl") as server:
        served = {"name": "old", "endpoint": server.endpoint, "model": "adder"}
        unlike = call(*files([new, served]))
    assert "verdict: " in unlike.stdout, unlike.output
    assert "warning: the models do not decode alike" in unlike.stdout
