"""Heads from a base and texts: by the command, as a step of a run, and again after a kill."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from modelyard.cli.heads.train import command
from modelyard.core.errors import DocumentError, HeadsError
from modelyard.core.locks import held
from modelyard.heads.__main__ import main, read_spec
from modelyard.heads.base import Base
from modelyard.heads.learning.making import Order, make_heads, plan_heads
from modelyard.heads.learning.training import TrainingSettings
from modelyard.heads.model import load_heads
from modelyard.testing.tiny_language import tiny_sentences


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in tiny_sentences(40, seed=7)))
    return path


def still():
    return 0.0


def test_variants_on_the_same_texts_share_the_hidden_states(tiny_base_folder, texts, tmp_path):
    stages = []
    for name, heads in (("two", 2), ("three", 3)):
        order = Order(
            base=tiny_base_folder, output=tmp_path / name, data=texts, work=tmp_path / "work",
            training=TrainingSettings(heads=heads, shortlist=40, epochs=1, batch=128, hold_out=0.2),
        )  # fmt: skip
        seen = []
        make_heads(order, clock=still, observe=seen.append)
        stages.append({each.stage for each in seen})
    assert stages == [{"reading", "training"}, {"training"}]


def test_nothing_to_learn_from_is_told(tiny_base_folder, tmp_path):
    order = Order(base=tiny_base_folder, output=tmp_path / "heads")
    with pytest.raises(HeadsError, match=r"give --data FILE or --self-distill TOKENS"):
        make_heads(order, clock=still)
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_are_refused(tiny_base_folder, texts, tmp_path):
    order = Order(base=tiny_base_folder, output=tmp_path / "heads", data=texts)
    order.work_folder.mkdir()
    with held(order.work_folder / "lock"), pytest.raises(HeadsError, match="another process works there"):
        make_heads(order, clock=still)


def test_a_plan_counts_without_running_the_base(tiny_base_folder, texts, tmp_path):
    order = Order(
        base=tiny_base_folder, output=tmp_path / "heads", data=texts, most_tokens=12,
        training=TrainingSettings(heads=3, layers=2, projection="own", shortlist=50),
    )  # fmt: skip
    plan = plan_heads(order)
    assert (plan.texts, plan.head_parameters) == (40, 3 * (2 * 32 * 33 + 50 * 32))
    assert plan.state_bytes == plan.tokens * 32 * 4
    assert plan.warnings == ["40 texts are longer than --longest and are cut at their end"]
    assert not order.work_folder.exists()


def run(*arguments):
    return CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False)


def test_the_command_trains_tells_and_leaves_alone(tiny_base_folder, tiny_base, texts, tmp_path):
    told = (
        tiny_base_folder, "--data", texts, "--output", tmp_path / "heads", "--heads", 2, "--epochs", 1,
        "--shortlist", 40, "--hold-out", 0.2,
    )  # fmt: skip
    first = run(*told)
    assert first.exit_code == 0
    assert "training  " in first.stderr
    assert first.stdout.splitlines()[0].startswith("head    top-1")
    assert load_heads(tmp_path / "heads", tiny_base).config.heads == 2
    again = json.loads(run(*told, "--json").stdout)
    assert again["before"] is True
    assert again["settings"]["shortlist"] == 40


def test_the_command_tells_what_it_would_do(tiny_base_folder, tmp_path):
    ended = run(tiny_base_folder, "--self-distill", 500, "--output", tmp_path / "heads", "--dry-run")
    assert "tokens           500" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def spec_of(tiny_base_folder, folder, **changes):
    path = folder / "spec.json"
    told = {
        "base": str(tiny_base_folder), "output": "heads", "record": "made.json",
        "training": {"heads": 2, "epochs": 2, "shortlist": 40, "batch": 32, "hold_out": 0.2},
    }  # fmt: skip
    path.write_text(json.dumps(told | changes))
    return path


def test_a_step_writes_its_record_when_all_is_done(tiny_base_folder, texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(spec_of(tiny_base_folder, tmp_path, data=str(texts)))]) == 0
    record = json.loads((tmp_path / "made.json").read_text())
    assert record["schema"] == "modelyard.heads_trained/1"
    assert len(record["accuracy"]) == 2


def test_every_fault_of_a_spec_is_told(tiny_base_folder, tmp_path):
    path = spec_of(
        tiny_base_folder, tmp_path, dtype="int3", self_distill={"tokens": 0}, training={"headz": 3}
    )
    with pytest.raises(DocumentError) as caught:
        read_spec(path)
    for words in ("dtype", "self_distill.tokens", "training.headz", "did you mean heads?"):
        assert words in str(caught.value)


def test_a_step_that_cannot_be_done_says_why(tiny_base_folder, tmp_path, capsys):
    assert main(["train", str(spec_of(tiny_base_folder, tmp_path))]) == 1
    assert "nothing to learn from" in capsys.readouterr().err


def test_the_command_trains_base_and_heads_together(tiny_base_folder, tiny_base, texts, tmp_path):
    pytest.importorskip("peft")
    told = (
        tiny_base_folder, "--data", texts, "--output", tmp_path / "heads", "--heads", 2, "--epochs", 1,
        "--shortlist", 40, "--hold-out", 0.2, "--lora", "--lora-rank", 2,
    )  # fmt: skip
    first = run(*told)
    assert first.exit_code == 0
    assert f"{tmp_path / 'heads.base'}: divergence 0.0" in first.stdout
    assert load_heads(tmp_path / "heads", Base.open(tmp_path / "heads.base")).config.heads == 2
    with pytest.raises(HeadsError, match=r"belong to .*/heads\.base "):
        load_heads(tmp_path / "heads", tiny_base)
    assert "(before)" in run(*told).stdout


def test_a_place_for_a_new_base_without_lora_is_a_mistake(tiny_base_folder, texts, tmp_path):
    told = ("--data", texts, "--output", tmp_path / "heads", "--new-base", tmp_path / "new")
    ended = CliRunner().invoke(command, [str(each) for each in (tiny_base_folder, *told)])
    assert (ended.exit_code, "is for --lora" in ended.stderr) == (2, True)
