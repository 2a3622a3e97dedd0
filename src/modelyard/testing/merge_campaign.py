"""The kill campaign over `modelyard merge`: `python -m modelyard.testing.merge_campaign --kills 50`.

Each trial merges the same checkpoints, is killed once, is resumed and is then held against what was
promised: the output is byte for byte that of a merge that nobody killed, at no instant was there a
folder in its place that was not whole, and nothing is left beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from modelyard.artifacts.safetensors import DType, layout
from modelyard.core.digests import digest_path
from modelyard.core.failpoints import MERGE_NAMES
from modelyard.core.files import write_json
from modelyard.testing.campaign import Broken, broken_promises, run_campaign
from modelyard.testing.kills import Kill, Survival, Trial, failpoint_kills, random_kills, survive

_RECIPE = """\
name: first
merge_method: linear
models:
  - {model: a, parameters: {weight: 0.5}}
  - {model: b, parameters: {weight: 0.5}}
---
merge_method: dare_ties
base_model: base
models:
  - {model: a, parameters: {weight: 0.6, density: 0.5}}
  - {model: first, parameters: {weight: 0.4, density: [0.3, 0.9]}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """What all trials share: the inputs, and the digest of the output when nobody is killed."""

    inputs: Path
    digests: Mapping[str, str]


def prepare(folder: Path, *, layers: int, width: int) -> Yardstick:
    """Write three small checkpoints and a recipe of two merges, and carry it out once."""
    chance = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        f"model.layers.{i}.mlp.up_proj.weight": (width, width) for i in range(layers)
    }
    shapes |= {"model.embed_tokens.weight": (width // 2, width), "model.norm.weight": (width,)}
    for name in ("base", "a", "b"):
        place = folder / name
        place.mkdir(parents=True)
        write_json(place / "config.json", {"model_type": "llama", "num_hidden_layers": layers})
        start, infos, _ = layout(
            ((key, DType.F32, shape) for key, shape in shapes.items()), path=place, metadata={}
        )
        values = [chance.standard_normal(info.shape, np.float32) for info in infos]
        (place / "model.safetensors").write_bytes(start + b"".join(v.tobytes() for v in values))
    (folder / "recipe.yml").write_text(_RECIPE)
    out = folder / "expected"
    subprocess.run(_command(out), cwd=folder, check=True, capture_output=True)
    return Yardstick(inputs=folder, digests=_digests(out))


def run_trial(folder: Path, kill: Kill, seed: int, *, yardstick: Yardstick) -> tuple[Survival, list[Broken]]:
    """One kill over one merge; what happened, and the promises broken."""
    folder.mkdir(parents=True)
    out = folder / "out"
    trial = Trial(
        argv=_command(out),
        cwd=yardstick.inputs,
        environment={**os.environ, "PYTHONWARNINGS": "ignore"},
        json_files=(out / "merge.json", out / "model.safetensors.index.json"),
    )
    with _half_seen(out) as seen:
        survival = survive(trial, kill, seed=seed)
    left = sorted(path.name for path in folder.iterdir() if path != out)
    promises = {
        "done": "" if survival.done else f"statuses {survival.statuses}: {survival.stderr[-500:]}",
        "nothing alive": "" if not survival.left_alive else f"pids {survival.left_alive}",
        "never half there": ", ".join(seen[:3]) or "; ".join(survival.broken_json[:3]),
        "the same bytes": _difference(_digests(out), yardstick.digests),
        "nothing left beside": ", ".join(left),
    }
    return survival, broken_promises(kill, promises)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: digest_path(path) for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def _difference(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    names = sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
    return f"{len(names)} files differ: {', '.join(names[:5])}" if names else ""


def _command(out: Path) -> list[str]:
    run = [sys.executable, "-m", "modelyard.cli.main", "merge", "run", "recipe.yml", str(out), "--resume"]
    return [*run, "--threads", "2", "--shard-size", "2MB"]


@contextmanager
def _half_seen(out: Path) -> Iterator[list[str]]:
    """Look at the output over and over; note whenever it is there and not whole."""
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.001):
            if out.exists() and not (out / "merge.json").exists():
                seen.append("the output was there without its record")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()


def main() -> int:
    """Run the campaign and print what was found; status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50, help="kills at random instants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, default=64)
    parser.add_argument("--width", type=int, default=512)
    chosen = parser.parse_args()
    kills = [
        *failpoint_kills(only=MERGE_NAMES, later=(1, 2, 9)),
        *random_kills(chosen.kills, within_s=1.5, seed=chosen.seed),
    ]
    with tempfile.TemporaryDirectory(prefix="modelyard-merge-") as root:
        yardstick = prepare(Path(root) / "inputs", layers=chosen.layers, width=chosen.width)
        return run_campaign(kills, partial(run_trial, yardstick=yardstick), seed=chosen.seed)


if __name__ == "__main__":
    sys.exit(main())
