"""Self-distillation, caching and training are killed everywhere and end with the same bytes.

A process that imports torch takes seconds to start: here each is a fork of one that has imported everything.
The long campaign, with processes of their own, is `python -m modelyard.testing.heads_campaign`.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from modelyard.core.failpoints import HEADS_NAMES, VARIABLE
from modelyard.testing.heads_campaign import lay_out, made_in
from modelyard.testing.tiny_language import make_tiny_base

_IMPORTED = (
    "modelyard.heads.__main__", "transformers.generation.utils", "transformers.models.llama.modeling_llama",
)  # fmt: skip
_DEADLINE_S = 60.0
#: Of these the second passing: something stands before it.
_SECOND = ("heads.after_batch_recorded", "heads.after_step_saved")

pytestmark = [pytest.mark.kill, pytest.mark.slow]


def work(folder: str, failpoint: str) -> None:
    """What a process does: all of it, or up to the failpoint."""
    import torch

    from modelyard.heads.__main__ import main

    torch.set_num_threads(1)
    os.environ[VARIABLE] = failpoint
    os.chdir(folder)
    raise SystemExit(main(["train", "spec.json"]))


def ended(folder: Path, *, failpoint: str = "", after_s: float | None = None) -> int:
    """The exit status of one process; with `after_s` it is killed then."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(list(_IMPORTED))
    process = forks.Process(target=work, args=(str(folder), failpoint))
    process.start()
    if after_s is not None:
        time.sleep(after_s)
        os.kill(process.pid, signal.SIGKILL)
    process.join(_DEADLINE_S)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def whole_of(root: Path, *, joint: bool):
    """The base, what is made when nobody is killed, and how long that takes."""
    make_tiny_base(root / "base")
    lay_out(root / "whole", root / "base", joint=joint)
    ended(root / "whole", failpoint="heads.after_conversations")  # the imports are not timed
    begun = time.monotonic()
    assert ended(root / "whole") == 0
    return root / "base", made_in(root / "whole"), time.monotonic() - begun


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Of heads alone."""
    return whole_of(tmp_path_factory.mktemp("heads_kills"), joint=False)


@pytest.fixture(scope="module")
def joint_whole(tmp_path_factory):
    """Of heads and base."""
    pytest.importorskip("peft")
    return whole_of(tmp_path_factory.mktemp("joint_kills"), joint=True)


def is_survived(folder: Path, whole, failpoint: str, *, joint: bool) -> None:
    base, made, _ = whole
    lay_out(folder, base, joint=joint)
    assert ended(folder, failpoint=failpoint) == -signal.SIGKILL
    assert made_in(folder) != made or failpoint == "heads.after_written"
    assert ended(folder) == 0
    assert made_in(folder) == made


@pytest.mark.parametrize(
    "failpoint",
    [f"{name}:2" if name in _SECOND else name for name in HEADS_NAMES if "joint" not in name],
)
def test_killed_at_a_failpoint_it_goes_on_to_the_same_bytes(whole, tmp_path, failpoint):
    is_survived(tmp_path / "trial", whole, failpoint, joint=False)


@pytest.mark.parametrize("failpoint", [name for name in HEADS_NAMES if "joint" in name])
def test_killed_while_base_and_heads_are_trained_it_goes_on_to_the_same_bytes(
    joint_whole, tmp_path, failpoint
):
    is_survived(tmp_path / "trial", joint_whole, failpoint, joint=True)


def test_killed_at_random_instants_it_goes_on_to_the_same_bytes(whole, tmp_path):
    base, made, seconds = whole
    lay_out(tmp_path / "trial", base, joint=False)
    chance = random.Random(4)
    for _ in range(3):
        ended(tmp_path / "trial", after_s=chance.uniform(0.1, 0.5) * seconds)
    assert ended(tmp_path / "trial") == 0
    assert made_in(tmp_path / "trial") == made
