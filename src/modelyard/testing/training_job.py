"""A small training command for tests: `python -m modelyard.testing.training_job --lr 0.01 --epochs 9`.

Its loss falls with the epochs towards a floor that its hyperparameters set; two curves may cross. It
prints `epoch 3 val_loss: 0.5` after each epoch, goes on from the checkpoint of a parent's
folder, and writes its starts and ends into a log, where two at once of one trial are seen.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import sys
import time
from pathlib import Path


def loss(*, lr: float, layers: int, momentum: float, epoch: int) -> float:
    """What is left after so many epochs: best at lr 0.01, 3 layers and momentum 0.9."""
    floor = 0.1 + (math.log10(lr) + 2.0) ** 2 * 0.2 + (layers - 3) ** 2 * 0.05 + (momentum - 0.9) ** 2 * 0.3
    speed = 0.15 + 0.25 * min(1.0, lr * 50.0)
    return floor + 2.0 * math.exp(-speed * epoch)


def main() -> int:
    """Train; status 7 where the trial is in another process's hands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--opt", default="sgd")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--epoch-s", type=float, default=0.01, help="seconds an epoch takes")
    parser.add_argument("--folder", type=Path, help="where the checkpoint goes")
    parser.add_argument("--parent", default="", help="the folder of a checkpoint to go on from")
    parser.add_argument("--log", type=Path, help="where starts and ends are written")
    parser.add_argument("--memory", type=int, default=10**9, help="the largest batch that fits")
    chosen = parser.parse_args()
    if chosen.folder is not None:
        chosen.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(chosen.folder / "alive", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log(chosen, "overlap")
            return 7
    _log(chosen, "start")
    if chosen.batch_size > chosen.memory:
        sys.stderr.write("RuntimeError: CUDA out of memory. Tried to allocate 20.00 GiB\n")
        return 1
    _train(chosen)
    _log(chosen, "done")
    return 0


def _train(chosen: argparse.Namespace) -> None:
    begun = _checkpoint(Path(chosen.parent)) if chosen.parent else 0
    for epoch in range(begun + 1, chosen.epochs + 1):
        time.sleep(chosen.epoch_s)
        value = loss(lr=chosen.lr, layers=chosen.layers, momentum=chosen.momentum, epoch=epoch)
        sys.stdout.write(f"epoch {epoch} val_loss: {value:.6f}\n")
        sys.stdout.flush()
    if chosen.folder is not None:
        (chosen.folder / "checkpoint.json").write_text(json.dumps({"epoch": chosen.epochs}))


def _checkpoint(folder: Path) -> int:
    return int(json.loads((folder / "checkpoint.json").read_text())["epoch"])


def _log(chosen: argparse.Namespace, word: str) -> None:
    if chosen.log is None:
        return
    file = os.open(chosen.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    name = chosen.folder.name if chosen.folder is not None else ""
    os.write(file, f"{word} {name} {os.getpid()} {time.time():.6f}\n".encode())
    os.close(file)


if __name__ == "__main__":
    sys.exit(main())
