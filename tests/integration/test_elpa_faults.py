"""The faults of the original ELPA launcher, one test each, through the real command line.

The numbers are those of the list in docs/elpa.md. Each test fails on the original's behaviour.
Faults of the ensemble (1, 2, 3, 11) are tested where the ensemble is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.processes import kill_marked, marked

MODELYARD = [sys.executable, "-m", "modelyard.cli.main"]
Train = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write an ELPA training file with the given models."""

    def write(models: list[dict[str, Any]], **top: Any) -> Path:
        path = tmp_path / "train.json"
        path.write_text(json.dumps({"context": {"python_bin": sys.executable}, "models": models, **top}))
        return path

    return write


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Run `modelyard train` on a file."""

    def train(config: Path, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        argv = [*MODELYARD, "train", "--config", str(config), "--run-dir", str(tmp_path / "run"), *options]
        argv += ["--yard", str(tmp_path / "yard")]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, **more)

    return train


def _manifest(tmp_path: Path) -> dict[str, dict[str, Any]]:
    models = json.loads((tmp_path / "run" / "manifest.json").read_bytes())["models"]
    return {model["name"]: model for model in models}


def _python(code: str) -> str:
    return "{python_bin} -c '" + code + "'"


def test_the_template_of_eight_is_planned_verbatim(tmp_path: Path, train: Train) -> None:
    names = ["lstnet", "patchtst", "informer", "autoformer"], ["tide", "prophet", "nbeats", "deepar"]
    models = [
        {
            "name": name,
            "group": group,
            "enabled": True,
            "env": {},
            "train_cmd": "{python_bin} {project_root}/"
            + name
            + "/main.py --data {dataset} --save_dir {model_dir} "
            "--horizon {horizon} --period {period} --seed {seed}",
        }
        for group, members in zip(("online", "offline"), names, strict=True)
        for name in members
    ]
    config = tmp_path / "train.json"
    top = {"dataset": "train.csv", "val_dataset": "val.csv", "test_dataset": "test.csv"}
    settings = {"project_root": "/path/to/code", "horizon": 24, "period": 24, "beta": 0.7, "seed": 42}
    config.write_text(json.dumps({**top, **settings, "context": {"python_bin": "python3"}, "models": models}))
    done = train(config, "--manifest-out", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    assert "lacking here" in done.stderr  # the scripts and the data are not on this machine
    manifest = json.loads((tmp_path / "out.json").read_bytes())
    assert {m["status"] for m in manifest["models"]} == {"planned"}
    assert len(manifest["models"]) == 8
    first = manifest["models"][0]
    assert first["train_cmd"] == (
        f"python3 /path/to/code/lstnet/main.py --data {tmp_path}/train.csv "
        f"--save_dir {tmp_path}/run/models/lstnet --horizon 24 --period 24 --seed 42"
    )
    keys = {"skill", "created_at", "run_dir", "dataset", "horizon", "period", "beta", "models"}
    assert keys <= set(manifest)
    original = "name group enabled train_cmd_template train_cmd model_dir env status return_code"
    assert {*original.split(), "stdout_log", "stderr_log", "started_at", "finished_at"} <= set(first)
    executed = train(config, "--execute")
    assert executed.returncode == 2
    assert not (tmp_path / "run" / "run.json").exists()


def test_two_hundred_models(tmp_path: Path, write: Callable[..., Path], train: Train) -> None:
    models = [{"name": f"m{i}", "train_cmd": "true"} for i in range(200)]
    done = train(write(models), "--execute")
    assert done.returncode == 0, done.stderr
    assert {m["status"] for m in _manifest(tmp_path).values()} == {"ok"}


def test_fault_4_duplicate_names(write: Callable[..., Path], train: Train) -> None:
    models = [{"name": "a", "group": g, "train_cmd": "true"} for g in ("online", "offline")]
    done = train(write(models))
    assert done.returncode == 2
    assert "names two models" in done.stderr and "models[1].name" in done.stderr


def test_fault_5_exit_status_tells_of_failures(
    tmp_path: Path, write: Callable[..., Path], train: Train
) -> None:
    models = [
        {"name": "bad", "train_cmd": _python("raise SystemExit(4)")},
        {"name": "good", "train_cmd": "true"},
    ]
    done = train(write(models), "--execute", "--continue-on-error")
    assert done.returncode == 3
    assert _manifest(tmp_path)["bad"]["return_code"] == 4
    assert _manifest(tmp_path)["good"]["status"] == "ok"


def test_without_continue_the_pool_stops(tmp_path: Path, write: Callable[..., Path], train: Train) -> None:
    models = [{"name": "bad", "train_cmd": "false"}, {"name": "next", "train_cmd": "true"}]
    done = train(write(models), "--execute", "--jobs", "1")
    assert done.returncode == 1
    assert _manifest(tmp_path)["next"]["status"] == "planned"
    assert "continue_on_error" in _manifest(tmp_path)["next"]["reason"]


def test_members_that_are_not_required_do_not_count(write: Callable[..., Path], train: Train) -> None:
    models = [{"name": "bad", "train_cmd": "false", "required": False}, {"name": "good", "train_cmd": "true"}]
    assert train(write(models), "--execute").returncode == 0


def test_fault_6_a_kill_loses_nothing(tmp_path: Path, write: Callable[..., Path], train: Train) -> None:
    slow = _python('import time; open("go", "a").write("x"); time.sleep(1.5); open("end", "a").write("x")')
    config = write([{"name": "slow", "train_cmd": slow}])
    argv = [*MODELYARD, "train", "--config", str(config), "--run-dir", str(tmp_path / "run"), "--execute"]
    process = subprocess.Popen([*argv, "--yard", str(tmp_path / "yard")], stderr=subprocess.DEVNULL)
    _until(lambda: (tmp_path / "go").exists())
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _manifest(tmp_path)["slow"]["status"] == "running"
    assert train(config, "--execute").returncode == 0  # adopts the command that still runs
    assert _manifest(tmp_path)["slow"]["status"] == "ok"
    assert (tmp_path / "end").read_text() == "x"
    assert (tmp_path / "go").read_text() == "x", "it was started twice"


def test_fault_6_a_stop_orphans_nobody(tmp_path: Path, write: Callable[..., Path], train: Train) -> None:
    child = 'import subprocess, time; subprocess.Popen(["sleep", "600"], start_new_session=True); '
    config = write([{"name": "slow", "train_cmd": _python(child + 'open("go", "w"); time.sleep(600)')}])
    environment = {**os.environ, "STOP_TEST_MARK": str(tmp_path)}
    argv = [*MODELYARD, "train", "--config", str(config), "--run-dir", str(tmp_path / "run"), "--execute"]
    process = subprocess.Popen(
        [*argv, "--yard", str(tmp_path / "yard")],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    _until(lambda: (tmp_path / "go").exists())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    try:
        assert marked(f"STOP_TEST_MARK={tmp_path}") == []
    finally:
        kill_marked(f"STOP_TEST_MARK={tmp_path}")
    assert train(config).returncode == 0


def test_fault_7_relative_paths_start_from_the_config(
    tmp_path: Path, write: Callable[..., Path], train: Train
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("1\n")
    (tmp_path / "learn.py").write_text(
        "import sys; open(sys.argv[2] + '/model', 'w').write(open(sys.argv[1]).read())"
    )
    models = [{"name": "a", "train_cmd": "{python_bin} learn.py {dataset} {model_dir}"}]
    done = train(write(models, dataset="data/train.csv"), "--execute", cwd="/")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "models" / "a" / "model").read_text() == "1\n"


@pytest.mark.parametrize(
    "value", ["a; touch owned", "$(touch owned)", "`touch owned`", "x' && touch owned '", "a\nb"]
)
@pytest.mark.parametrize("shell", [False, True])
def test_fault_8_a_value_never_becomes_syntax(
    tmp_path: Path, write: Callable[..., Path], train: Train, value: str, shell: bool
) -> None:
    code = 'import sys; open(sys.argv[1], "w").write(sys.argv[2])'
    models = [
        {"name": "a", "shell": shell, "train_cmd": "{python_bin} -c '" + code + "' {model_dir}/seen {tag}"}
    ]
    done = train(write(models, tag=value), "--execute")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "models" / "a" / "seen").read_text() == value
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.parametrize("name", ["../../x", "a/../../x", "/etc/x", "a/b", ".hidden", "", "a b", "a\nb"])
def test_fault_8_a_name_never_leaves_the_run(
    tmp_path: Path, write: Callable[..., Path], train: Train, name: str
) -> None:
    done = train(write([{"name": name, "train_cmd": "true"}]), "--execute")
    assert done.returncode == 2
    assert "models[0].name" in done.stderr
    assert not (tmp_path / "run").exists()


def test_fault_8_only_identifiers_are_placeholders(
    tmp_path: Path, write: Callable[..., Path], train: Train
) -> None:
    models = [{"name": "a", "train_cmd": 'echo {seed.__class__} {} {"lr":0.1} {0} {seed}'}]
    done = train(write(models), "--execute")
    assert done.returncode == 0, done.stderr
    log = Path(_manifest(tmp_path)["a"]["stdout_log"]).read_text()
    assert log == "{seed.__class__} {} {lr:0.1} {0} 42\n"  # the shell-like split takes the quotes


@pytest.mark.parametrize(
    "word", ["a && b", "a | b", "a > b", "a; b", "echo $HOME", 'echo "$HOME"', "echo `id`", "a &"]
)
def test_fault_8_a_shell_is_never_guessed(write: Callable[..., Path], train: Train, word: str) -> None:
    done = train(write([{"name": "a", "train_cmd": word}]))
    assert done.returncode == 2
    assert "shell: true" in done.stderr


def test_quoted_operators_are_plain_text(tmp_path: Path, write: Callable[..., Path], train: Train) -> None:
    done = train(write([{"name": "a", "train_cmd": "echo 'a && b | c > $X' \"d; e\""}]), "--execute")
    assert done.returncode == 0, done.stderr
    assert Path(_manifest(tmp_path)["a"]["stdout_log"]).read_text() == "a && b | c > $X d; e\n"


def test_fault_9_string_booleans(write: Callable[..., Path], train: Train) -> None:
    done = train(write([{"name": "a", "train_cmd": "true", "enabled": "false"}]))
    assert done.returncode == 2
    assert 'models[0].enabled = "false": is not a boolean' in done.stderr


def test_a_disabled_model_is_recorded_and_not_run(
    tmp_path: Path, write: Callable[..., Path], train: Train
) -> None:
    models = [{"name": "off", "train_cmd": "false", "enabled": False}, {"name": "on", "train_cmd": "true"}]
    assert train(write(models), "--execute").returncode == 0
    assert _manifest(tmp_path)["off"]["status"] == "disabled"


def test_fault_10_timeout(tmp_path: Path, write: Callable[..., Path], train: Train) -> None:
    done = train(write([{"name": "a", "train_cmd": "sleep 600", "timeout_s": 0.3}]), "--execute")
    assert done.returncode == 1
    assert "ran longer than 0.3 s" in _manifest(tmp_path)["a"]["reason"]


def test_fault_10_output_check(tmp_path: Path, write: Callable[..., Path], train: Train) -> None:
    models = [{"name": "a", "train_cmd": "true", "outputs": {"model": "{model_dir}/model.bin"}}]
    done = train(write(models), "--execute")
    assert done.returncode == 1
    assert "the promised output is missing" in _manifest(tmp_path)["a"]["reason"]


def test_fault_10_resume_repeats_nothing(tmp_path: Path, write: Callable[..., Path], train: Train) -> None:
    count = _python('open("count-{model_name}", "a").write("x")')
    fails_once = _python('import os, sys; ok = os.path.exists("flag"); open("flag", "w"); sys.exit(not ok)')
    config = write([{"name": "a", "train_cmd": count}, {"name": "b", "train_cmd": fails_once}])
    assert train(config, "--execute", "--continue-on-error").returncode == 3
    assert train(config, "--execute").returncode == 0
    assert (tmp_path / "count-a").read_text() == "x"
    assert _manifest(tmp_path)["b"]["attempts"] == 2


def test_fault_10_retries(tmp_path: Path, write: Callable[..., Path], train: Train) -> None:
    count = "import os, sys; n = len(os.listdir(sys.argv[1])); "
    flaky = _python(count + 'open(sys.argv[1] + "/" + str(n), "w"); sys.exit(n < 2)')
    models = [{"name": "a", "train_cmd": flaky + " {model_dir}", "retries": 3, "backoff_s": 0.01}]
    assert train(write(models), "--execute").returncode == 0
    assert _manifest(tmp_path)["a"]["attempts"] == 3


def test_all_faults_at_once(write: Callable[..., Path], train: Train) -> None:
    models = [
        {"name": "a", "group": "sideways", "train_cmd": "true {nope}"},
        {"name": "a", "enabled": "yes", "train_cmd": "true && false"},
        {"name": "b", "train_cmd": 7, "retrys": 2},
    ]
    done = train(write(models, horizon=0, beta=1.5))
    assert done.returncode == 2
    known = ("horizon = 0", "beta = 1.5", "sideways", "{nope}", "names two models", "not a boolean", "&&")
    more = ("train_cmd = 7", "did you mean retries?")
    assert [telling for telling in (*known, *more) if telling not in done.stderr] == []


def test_secrets_reach_the_command_and_no_file(
    tmp_path: Path, write: Callable[..., Path], train: Train
) -> None:
    planted = "hunter2-planted-value"
    code = (
        'import os; open("seen", "w").write(str(len(os.environ["VENDOR_KEY"]) + len(os.environ["MY_TOKEN"])))'
    )
    literal = _python('import os; assert len(os.environ["LITERAL_API_KEY"]) == 11')
    models = [
        {"name": "a", "train_cmd": _python(code), "secrets": ["VENDOR_KEY"]},
        {"name": "b", "train_cmd": literal, "env": {"LITERAL_API_KEY": "in the file"}},
    ]
    done = train(write(models), "--execute", env={**os.environ, "VENDOR_KEY": planted, "MY_TOKEN": planted})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_text() == str(2 * len(planted))
    holding = [p for p in tmp_path.rglob("*") if p.is_file() and planted.encode() in p.read_bytes()]
    assert holding == []
    copies = [p for p in (tmp_path / "run").rglob("*") if p.is_file() and b"in the file" in p.read_bytes()]
    assert copies == []


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
