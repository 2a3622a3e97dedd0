"""The kill campaign over training heads: `python -m modelyard.testing.heads_campaign --kills 30`.

Each trial lets a tiny base write its own data, caches its hidden states, trains heads, and base and heads
together; it is killed once, goes on, and must give what it gives when nobody is killed, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modelyard.core.digests import digest_path
from modelyard.core.failpoints import HEADS_NAMES
from modelyard.testing.campaign import Broken, broken_promises, run_campaign
from modelyard.testing.kills import Kill, Survival, Trial, failpoint_kills, random_kills, survive
from modelyard.testing.tiny_language import make_tiny_base

#: Longer than one undisturbed run, its imports included.
_WITHIN_S = 10.0
_TOPICS = ("the cat ", "the dog hears the ", "the owl likes the ")
_SPEC: Mapping[str, Any] = {
    "output": "heads",
    "record": "made.json",
    "topics": "topics.jsonl",
    "self_distill": {"tokens": 150, "batch": 6, "most_prompt_tokens": 16, "most_answer_tokens": 24},
    "training": {"heads": 2, "epochs": 40, "shortlist": 40, "batch": 32, "hold_out": 0.2, "patience": 100},
}
_JOINT: Mapping[str, Any] = {"joint": {"rank": 2, "alpha": 4, "batch": 2, "epochs": 3}}
#: What must be the same to the byte, in the folder of a trial.
_SAME = (
    "heads/heads.safetensors", "heads/held_out.jsonl", "heads.work/conversations.jsonl",
    "heads.base/model.safetensors",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """What all trials share: the base, and what is made when nobody is killed."""

    base: Path
    made: Mapping[str, Any]


def lay_out(folder: Path, base: Path, *, joint: bool) -> None:
    """A folder with a spec and topics; with `joint` for the training of base and heads together too."""
    folder.mkdir(parents=True)
    (folder / "topics.jsonl").write_text("".join(json.dumps({"opening": each}) + "\n" for each in _TOPICS))
    (folder / "spec.json").write_text(json.dumps({"base": str(base), **_SPEC, **(_JOINT if joint else {})}))


def made_in(folder: Path) -> Mapping[str, Any]:
    """Digests of what was made, and the facts but for the time it took and where it lay."""
    found: dict[str, Any] = {name: digest_path(folder / name) for name in _SAME if (folder / name).exists()}
    record = folder / "heads" / "heads.json"
    if record.exists():
        facts = json.loads(record.read_bytes())
        facts["training"].get("stage_one", facts["training"]).pop("seconds")
        del facts["base_name"]
        found["heads.json"] = facts
    return found


def prepare(folder: Path) -> Yardstick:
    """Make a base, and heads without any kill."""
    base = folder / "base"
    make_tiny_base(base)
    lay_out(folder / "whole", base, joint=True)
    subprocess.run(_command(), cwd=folder / "whole", check=True, capture_output=True, env=_environment())
    return Yardstick(base=base, made=made_in(folder / "whole"))


def run_trial(folder: Path, kill: Kill, seed: int, *, yardstick: Yardstick) -> tuple[Survival, list[Broken]]:
    """One kill over one training; what happened, and the promises broken."""
    lay_out(folder, yardstick.base, joint=True)
    trial = Trial(
        argv=_command(),
        cwd=folder,
        environment=_environment(),
        json_files=(
            folder / "made.json",
            folder / "heads" / "heads.json",
            folder / "heads.work" / "conversations.jsonl.state.json",
        ),
    )
    survival = survive(trial, kill, seed=seed)
    promises = {
        "done": "" if survival.done else f"statuses {survival.statuses}: {survival.stderr[-500:]}",
        "nothing alive": "" if not survival.left_alive else f"pids {survival.left_alive}",
        "whole JSON": "; ".join(survival.broken_json[:3]),
        "the same bytes": "" if made_in(folder) == yardstick.made else "what was made differs",
    }
    return survival, broken_promises(kill, promises)


def _command() -> list[str]:
    return [sys.executable, "-m", "modelyard.heads", "train", "spec.json"]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def main() -> int:
    """Run the campaign and print what was found; status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=30, help="kills at random instants")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    kills = [
        *failpoint_kills(only=HEADS_NAMES, later=(1, 2)),
        *random_kills(chosen.kills, within_s=_WITHIN_S, seed=chosen.seed),
    ]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="modelyard-heads-") as root:
        yardstick = prepare(Path(root) / "inputs")
        return run_campaign(kills, partial(run_trial, yardstick=yardstick), seed=chosen.seed)


if __name__ == "__main__":
    sys.exit(main())
