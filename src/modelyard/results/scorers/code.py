"""The code scorer: an answer's program followed by the example's test, run in a process of its own.

Right is what ends with status 0. The process gets an empty folder, limits of time, memory, files and output,
no environment and, where the kernel lets an ordinary process have it, a network of its own with nothing in
it. That holds off accidents and runaway programs; it is no wall against a hostile one: run such answers
in a container or on a machine that may be lost.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from modelyard.core.processes import kill_marked
from modelyard.results.examples import Example, Score
from modelyard.results.scorers import Scorer

_MARK = "MODELYARD_CODE_ANSWER"
_TIMEOUT_S, _MEMORY_MIB = 10.0, 1024
_FILE_BYTES, _OPEN_FILES, _SHOWN_CHARS = 16 << 20, 64, 200
_BLOCK = re.compile(r"^```[ \t]*([\w+-]*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: Sets the limits and becomes the program; `unshare` takes user and network namespaces.
_LAUNCHER = """\
import ctypes, os, resource, sys
seconds, memory, size, files = map(int, sys.argv[1:5])
for what, most in (("CPU", seconds), ("AS", memory), ("FSIZE", size), ("NOFILE", files), ("CORE", 0)):
    try:
        resource.setrlimit(getattr(resource, "RLIMIT_" + what), (most, most))
    except (ValueError, OSError, AttributeError):
        pass
try:
    ctypes.CDLL(None).unshare(0x10000000 | 0x40000000)
except (OSError, AttributeError):
    pass
os.execv(sys.executable, [sys.executable, "-I", "-B", "answer.py"])
"""


def program_of(answer: str) -> str:
    """The last block of Python in an answer, else the last block of any kind, else all of it."""
    blocks = [(language.lower(), body) for language, body in _BLOCK.findall(answer)]
    python = [body for language, body in blocks if language in ("python", "py", "python3")]
    chosen = python or [body for _, body in blocks]
    return str(chosen[-1]) if chosen else answer


def _code(example: Example, answer: str) -> Score:
    program = program_of(answer)
    whys = [_run(f"{program}\n\n{test}\n", example) for test in example.answers]
    failed = [why for why in whys if why]
    if failed:
        return Score(value=0.0, why=failed[0])
    return Score(value=1.0, why="the test passes")


def _run(program: str, example: Example) -> str:
    """Why a program fails; empty where it does not."""
    timeout, memory = (
        _number(example, name, most)
        for name, most in (("timeout_s", _TIMEOUT_S), ("memory_mib", _MEMORY_MIB))
    )
    mark = uuid.uuid4().hex
    limits = [int(timeout) + 1, int(memory) << 20, _FILE_BYTES, _OPEN_FILES]
    argv = [sys.executable, "-I", "-c", _LAUNCHER, *map(str, limits)]
    with tempfile.TemporaryDirectory(prefix="modelyard-code-") as folder:
        try:
            Path(folder, "answer.py").write_text(program, encoding="utf-8")
            with tempfile.TemporaryFile() as said:  # no pipe: what outlives the program may keep it open
                process = subprocess.Popen(
                    argv, cwd=folder, env={_MARK: mark}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=said, start_new_session=True,
                )  # fmt: skip
                try:
                    status = process.wait(timeout)
                except subprocess.TimeoutExpired:
                    return f"did not end within {timeout:g} s"
                finally:
                    process.kill()
                    process.wait()
                    kill_marked(f"{_MARK}={mark}")
                said.seek(max(0, said.seek(0, 2) - 4096))
                lines = said.read().decode(errors="replace").strip().splitlines()
        except (OSError, UnicodeEncodeError) as error:
            return f"cannot be run: {error}"
    if status == 0:
        return ""
    return (lines[-1] if lines else f"ended with status {status}")[:_SHOWN_CHARS]


def _number(example: Example, name: str, default: float) -> float:
    value = example.options.get(name, default)
    return float(value) if isinstance(value, int | float) and 0 < value < 1e6 else default


CODE = Scorer(name="code", version="1", zero_one=True, judge=_code)
