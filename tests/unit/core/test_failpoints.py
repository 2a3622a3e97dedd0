"""Failpoints end the process where, and only when, the environment says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import modelyard
from modelyard.core.failpoints import (
    CERTIFY_NAMES,
    EVALUATE_NAMES,
    FORECAST_NAMES,
    GATEWAY_NAMES,
    GOVERNED_NAMES,
    HEADS_NAMES,
    MERGE_NAMES,
    NAMES,
    REGISTRY_NAMES,
    SLURM_NAMES,
    TUNE_NAMES,
    VARIABLE,
    WATCH_NAMES,
)
from modelyard.runs.states import MOVES

CODE = """
import os
from modelyard.core.failpoints import failpoint
for i in range(1, 4):
    failpoint("journal.before_write")
    failpoint("journal.after_sync")
    os.write(1, str(i).encode())
"""


@pytest.mark.parametrize(
    ("value", "status", "output"),
    [
        ("", 0, "123"),
        ("journal.before_sync", 0, "123"),
        ("journal.before_write", -9, ""),
        ("journal.after_sync:2", -9, "1"),
        ("journal.after_sync:4", 0, "123"),
    ],
)
def test_the_process_dies_the_stated_time_it_passes(value, status, output):
    environment = {**os.environ, VARIABLE: value}
    ended = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (status, output)


def test_the_list_of_failpoints_is_what_the_code_passes():
    root = Path(modelyard.__file__).parent
    used = set()
    for path in root.rglob("*.py"):
        used |= set(re.findall(r'\b(?:failpoint|die_if_told)\("([a-z._]+)"\)', path.read_text()))
    used |= {f"governed.after_{state}" for state in MOVES} & set(GOVERNED_NAMES)  # one after every move
    known = {
        *NAMES,
        *MERGE_NAMES,
        *EVALUATE_NAMES,
        *CERTIFY_NAMES,
        *TUNE_NAMES,
        *REGISTRY_NAMES,
        *GOVERNED_NAMES,
        *HEADS_NAMES,
        *GATEWAY_NAMES,
        *SLURM_NAMES,
        *WATCH_NAMES,
        *FORECAST_NAMES,
    }
    assert used == known
