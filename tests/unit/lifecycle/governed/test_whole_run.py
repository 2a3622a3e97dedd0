"""A governed run with nothing made up: trained, asked, certified, promoted, followed, rolled back, shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.core.errors import DocumentError, GovernanceError
from modelyard.core.files import read_json
from modelyard.core.signing import open_signer, public_pem
from modelyard.lifecycle.governed.run_training import run_training
from modelyard.runs.states import standing
from modelyard.runs.yard import open_yard
from modelyard.verify.certificate import verify_certificate
from modelyard.verify.journal import verify_journal

ITEMS = 40
TRAIN = """\
import json, sys
from pathlib import Path
out, skill = Path(sys.argv[1]), float(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
with (out / "answers.jsonl").open("w") as file:
    for n in range(40):
        text = str(n + 5) if n < skill * 40 else "no idea"
        line = {"model": "adder", "example_id": f"q{n}", "sample": 0, "text": text}
        file.write(json.dumps(line) + "\\n")
"""


def answers(known: int) -> str:
    told = [
        {"model": "old", "example_id": f"q{n}", "sample": 0, "text": str(n + 5) if n < known else "?"}
        for n in range(ITEMS)
    ]
    return "".join(json.dumps(each) + "\n" for each in told)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A yard whose baseline knows a quarter of the sums, and whose candidate learns as many as it is told."""
    items = [
        {"prompt_id": f"q{n}", "messages": [{"role": "user", "content": f"What is {n} + 5?"}],
         "scorer": {"id": "numeric"}, "answers": [str(n + 5)], "critical": n < 3, "tags": ["sum"]}
        for n in range(ITEMS)
    ]  # fmt: skip
    (tmp_path / "pack.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (tmp_path / "old.jsonl").write_text(answers(10))
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "data.jsonl").write_text('{"text": "What is 2 + 5?"}\n')
    (tmp_path / "providers").mkdir()
    train = {"run": "{python} train.py {model_dir} {skill}"}
    (tmp_path / "providers" / "local.yaml").write_text(yaml.safe_dump({"train": train}))
    entry = {"engine": "replay", "answers": "{model_dir}/answers.jsonl"}
    (tmp_path / "providers" / "replies.yaml").write_text(yaml.safe_dump({"infer": {"entry": entry}}))
    declare(tmp_path)
    return tmp_path


def declare(folder: Path, *, skill: float = 0.9, **changed: Any) -> None:
    candidate = {"name": "adder", "base": "none", "data": ["data.jsonl"], "values": {"skill": skill}}
    governance = {
        "candidates": [candidate], "pack": "pack.jsonl", "baseline": "old", "budget": {"iterations": 2},
        **changed,
    }  # fmt: skip
    pool = [{"name": "old", "engine": "replay", "answers": "old.jsonl"}]
    document = {"name": "sums", "pool": pool, "governance": governance}
    (folder / "yard.yaml").write_text(yaml.safe_dump(document))


def trained(folder: Path, run_id: str = "r1", **asked: Any) -> dict[str, Any]:
    return run_training(
        folder / "runs" / run_id, run_id=run_id, model_candidate="adder", train_provider="local",
        infer_provider="replies", live=True, file=folder / "yard.yaml", yard=folder / ".modelyard", **asked,
    )  # fmt: skip


def command(folder: Path, *words: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "modelyard.cli.main", *words], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "USER": "ann"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == status, done.stderr + done.stdout
    return done.stdout


def test_better_is_promoted_to_prod_and_the_run_follows(folder: Path) -> None:
    result = trained(folder)
    assert (result["status"], result["promotion_recommendation"]) == ("pass", "promote_to_stage")
    report = read_json(Path(result["evidence"]))["report"]["path"]
    verdict = verify_certificate(Path(report))
    assert (verdict.faults, verdict.verdict) == ((), "pass")
    command(folder, "promote", "adder", "--to", "stage", "--evidence", report)
    key = folder / "keys" / "bea.pem"
    open_signer(key, create=True)
    (folder / ".modelyard" / "keys" / "trusted" / "bea.pem").write_text(public_pem(key))
    command(folder, "promote", "adder", "--to", "prod", "--evidence", report, "--approve", "--key", str(key))
    yard = open_yard(folder / ".modelyard", create=False)
    moves = [move.target for move in standing(yard.journal, "r1").moves]
    assert moves[-5:] == ["pass", "approval", "stage", "shadow", "prod"]
    assert all(verdict.report_digest in move.evidence for move in standing(yard.journal, "r1").moves[-5:])
    assert verify_journal(yard.journal.folder).faults == ()


def test_what_was_promoted_is_gone_on_from_and_compared_with(folder: Path) -> None:
    result = trained(folder)
    report = read_json(Path(result["evidence"]))["report"]["path"]
    command(folder, "promote", "adder", "--to", "stage", "--evidence", report)
    declare(folder, skill=1.0, baseline="stage")
    second = trained(folder, "r2", finetune_start_policy="continue_last_promoted")
    start = read_json(Path(second["manifest"]))["training_start"]
    assert (start["chosen"], start["digest"]) == ("adder@1", result["train_handle"]["weights"])
    told = read_json(Path(second["evidence"]))["report"]["path"]
    assert read_json(Path(told))["baseline"]["digest"] == read_json(Path(report))["candidate"]["digest"]


def test_worse_fails_and_repair_passes_at_a_smaller_alpha(folder: Path) -> None:
    declare(folder, skill=0.05)
    assert trained(folder)["status"] == "fail"
    told = command(folder, "repair", "r1", "--run-dir", "runs/r1", "--set", "skill=0.9", "--json")
    result = json.loads(told)
    assert (result["status"], result["iteration"]) == ("pass", 2)
    reports = [
        read_json(folder / "runs" / "r1" / "iterations" / f"iter_00{n}" / "evidence.json") for n in (1, 2)
    ]
    alphas = [read_json(Path(each["report"]["path"]))["design"]["alpha"] for each in reports]
    assert alphas[0] == pytest.approx(0.05 * 6 / 3.141592653589793**2)
    assert alphas[1] == pytest.approx(alphas[0] / 4)


def test_a_provider_that_cannot_be_read_costs_no_second_training(folder: Path) -> None:
    provider = folder / "providers" / "replies.yaml"
    right = provider.read_text()
    entry = {"engine": "replay", "answers": "{model_dir}/replies.jsonl"}
    provider.write_text(yaml.safe_dump({"infer": {"entry": entry}}))
    with pytest.raises(DocumentError, match="is not there"):
        trained(folder)
    yard = open_yard(folder / ".modelyard", create=False)
    assert standing(yard.journal, "r1").state == "artifacts_ready"
    provider.write_text(right)
    assert trained(folder)["status"] == "pass"
    assert sum(entry.kind == "job.intent" for entry in yard.journal.read()) == 1


def test_nothing_serves_the_baseline_yet(folder: Path) -> None:
    declare(folder, baseline="prod")
    with pytest.raises(GovernanceError, match="nothing serves prod yet"):
        trained(folder)
    declare(folder)
    assert trained(folder)["status"] == "pass"


def test_the_commands_show_what_the_library_does(folder: Path) -> None:
    started = command(
        folder, "run", "start", "--candidate", "adder", "--train-provider", "local", "--infer-provider",
        "replies", "--live", "--json",
    )  # fmt: skip
    result = json.loads(started)
    assert (result["run_id"], result["status"]) == ("adder-1", "pass")
    watched = command(folder, "run", "watch", "adder-1")
    assert "adder-1: pass (iteration 1), idle" in watched
    assert "next: promote to stage" in watched
    assert "adder-1" in command(folder, "run", "list")
    page = Path(command(folder, "run", "report", "adder-1").strip()).read_text()
    for told in ("Paired outcome", "candidate wins", "Lineage", "certificate 1", "How it came there"):
        assert told in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    dry = command(
        folder, "run", "start", "--candidate", "adder", "--train-provider", "local", "--infer-provider",
        "replies", "--json",
    )  # fmt: skip
    assert json.loads(dry)["status"] == "plan_only"
    command(
        folder, "run", "start", "--candidate", "adder", "--train-provider", "replies", "--infer-provider",
        "replies", status=2,
    )  # fmt: skip
