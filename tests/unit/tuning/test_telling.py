"""The helper for training scripts: one whole line a report, in the file or on the screen."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modelyard.tuning import telling
from modelyard.tuning.metrics.curves import LineReader, MetricRules
from modelyard.tuning.metrics.files import RecordReader
from modelyard.tuning.telling import tell

VARIABLE = "MODELYARD_METRICS"


def test_a_report_is_one_json_line_in_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "metrics.jsonl"))
    tell(step=3, val_accuracy=0.91)
    tell(loss=np.float32(0.5), epochs=2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert [json.loads(line) for line in lines] == [
        {"step": 3, "val_accuracy": 0.91},
        {"loss": 0.5, "epochs": 2.0},
    ]
    assert lines[-1].endswith("\n")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", ["", None])
def test_without_the_variable_the_same_line_is_printed(monkeypatch, capsys, value):
    monkeypatch.setenv(VARIABLE, value) if value is not None else monkeypatch.delenv(VARIABLE, raising=False)
    tell(step=np.int64(3), val_accuracy=0.91)
    printed = capsys.readouterr().out
    assert printed == '{"step": 3, "val_accuracy": 0.91}\n'
    found = LineReader(MetricRules(names=("val_accuracy",))).feed(printed.encode())
    assert [(r.step, r.value) for r in found] == [(3, 0.91)]


def test_what_is_no_number_is_told_as_it_is_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "metrics.jsonl"))
    tell(step=1, loss=math.nan)
    tell(step=2, loss=-math.inf)
    found = RecordReader(MetricRules(names=("loss",))).feed((tmp_path / "metrics.jsonl").read_bytes())
    assert repr([(r.step, r.value) for r in found]) == "[(1, nan), (2, -inf)]"


def test_what_cannot_be_a_number_is_refused_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "metrics.jsonl"))
    with pytest.raises(ValueError, match="high"):
        tell(step=1, loss="high")
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_copy_needs_nothing_and_lines_of_many_writers_stay_whole(tmp_path):
    (tmp_path / "told.py").write_bytes(Path(telling.__file__).read_bytes())
    script = (
        "import sys; sys.path.insert(0, '.'); import told\n"
        "for i in range(200): told.tell(step=i, **{'writer/' + sys.argv[1]: i})"
    )
    environment = {**os.environ, VARIABLE: str(tmp_path / "metrics.jsonl")}
    writers = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", script, str(n)], cwd=tmp_path, env=environment)
        for n in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for n in range(3):
        assert [r["step"] for r in records if f"writer/{n}" in r] == list(range(200))
