"""The kill harness notices what it is there to notice."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from modelyard.core.processes import marked
from modelyard.testing.kills import MARK, Kill, Trial, survive


def _trial(tmp_path: Path, program: str, **options: object) -> Trial:
    argv = [sys.executable, "-c", program]
    files = [tmp_path / "state.json"]
    return Trial(argv=argv, cwd=tmp_path, environment=dict(os.environ), json_files=files, **options)


def test_a_program_that_survives(tmp_path: Path) -> None:
    program = (
        "import os, time; time.sleep(0.4); open('.state.json', 'w').write('{}'); "
        "os.replace('.state.json', 'state.json')"
    )
    survival = survive(_trial(tmp_path, program), Kill(after_s=0.1))
    assert survival.statuses == [-9, 0]
    assert survival.done and survival.killed == 1 and not survival.left_alive and not survival.broken_json


def test_a_file_that_is_half_written_is_seen(tmp_path: Path) -> None:
    halves = "f.write('{'); f.flush(); time.sleep(0.3); f.write('}')"
    program = f"import time; f = open('state.json', 'w'); {halves}"
    assert survive(_trial(tmp_path, program), Kill(after_s=60.0)).broken_json


def test_a_process_that_left_its_session_is_found_and_ended(tmp_path: Path) -> None:
    program = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    survival = survive(_trial(tmp_path, program), Kill(after_s=60.0))
    assert len(survival.left_alive) == 1
    assert survival.left_alive[0] not in marked(MARK)


def test_a_program_that_never_ends_well(tmp_path: Path) -> None:
    survival = survive(_trial(tmp_path, "raise SystemExit(3)", most_runs=3), Kill(after_s=60.0))
    assert survival.statuses == [3, 3, 3]
    assert not survival.done
