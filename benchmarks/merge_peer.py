"""What each contender of the merging benchmark is asked to do, and what one process of it costs.

The contenders are `ours` (modelyard), `peer` (mergekit, default options) and `cp` (read all inputs
but one, copy that one, fsync it). Knows the recipes, the command lines, the page cache and how a
process is watched; nothing of rounds, sizes, tables and goals.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

CONTENDERS = ("ours", "peer", "cp")
WEIGHTS = {"a": 0.6, "b": 0.4}
SAMPLE_S = 0.02
# dd, for it reads into one buffer whatever it writes to; no reflink, for that copies nothing
COPY = """
set -e; out=$1; first=$2; shift 2
for file; do dd if="$file" of=/dev/null bs=1M status=none; done
mkdir "$out"; cp --reflink=never "$first"/*.safetensors "$out"; sync "$out"/*
"""
ABOUT_PEER = """
import json, importlib.metadata as m, torch
print(json.dumps({p: m.version(p) for p in ("mergekit", "torch", "transformers")}
                 | {"torch_threads": torch.get_num_threads()}))
"""
IMPORTS = "import mergekit.scripts.run_yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """One method's merge of two models at most, weighted or not."""

    models: tuple[str, ...] = ("a", "b")
    base: str = ""  # none where empty
    weighted: bool = True
    parameters: Mapping[str, float] = field(default_factory=dict)


METHODS = {
    "linear": Merge(),
    "slerp": Merge(base="a", weighted=False, parameters={"t": 0.4}),
    "task_arithmetic": Merge(base="base"),
    "ties": Merge(base="base", parameters={"density": 0.5}),
    "dare_ties": Merge(base="base", parameters={"density": 0.5}),
    "passthrough": Merge(models=("a",), weighted=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one process and its descendants took."""

    wall_s: float
    cpu_s: float  # user and system, of the process and of the children that it waited for
    private_mb: float  # highest sum of RssAnon over the process tree that a sample saw
    resident_mb: float  # highest VmHWM of any one process, mapped files counted
    failed: str = ""  # why the run does not count


def inputs(method: str) -> list[str]:
    """Checkpoints that the method reads, the first of them being the one that `cp` copies."""
    merge = METHODS[method]
    return list(dict.fromkeys(name for name in (*merge.models, merge.base) if name))


def recipe(method: str, home: Path) -> str:
    """The merge as mergekit's YAML (in its JSON subset), the same for both."""
    merge = METHODS[method]
    models: list[dict[str, object]] = [{"model": str(home / name)} for name in merge.models]
    if merge.weighted:
        for name, model in zip(merge.models, models, strict=True):
            model["parameters"] = {"weight": WEIGHTS[name]}
    whole: dict[str, object] = {"merge_method": method, "models": models}
    if merge.base:
        whole["base_model"] = str(home / merge.base)
    if merge.parameters:
        whole["parameters"] = dict(merge.parameters)
    return json.dumps(whole, indent=2) + "\n"


def command(contender: str, method: str, home: Path, *, peer: Path, work: Path) -> list[str]:
    """The command line that writes the merge of `home` to `work`/model."""
    out = work / "model"
    if contender == "cp":
        first, *others = inputs(method)
        return ["sh", "-c", COPY, "sh", str(out), str(home / first), *map(str, weights(home, others))]
    config = work / "merge.yml"
    config.write_text(recipe(method, home))
    if contender == "peer":
        return [str(peer.parent / "mergekit-yaml"), str(config), str(out)]
    return [modelyard(), "merge", "run", str(config), str(out)]


def modelyard() -> str:
    """Our console script, beside the Python that runs this."""
    return str(Path(sys.executable).parent / "modelyard")


def about(peer: Path) -> dict[str, object]:
    """Versions in the peer's environment and the threads that torch takes there by default."""
    done = subprocess.run([str(peer), "-c", ABOUT_PEER], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def weights(home: Path, names: list[str]) -> list[Path]:
    """The safetensors files of these checkpoints."""
    return [path for name in names for path in sorted((home / name).glob("*.safetensors"))]


def tensor_bytes(folder: Path) -> int:
    """Bytes of all tensors in a folder's safetensors files, from their headers."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        total += sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values())
    return total


def shortfall(first: Path, out: Path) -> str:
    """A merge has as many bytes of tensors as its first input; what is wrong if it has not."""
    required, found = tensor_bytes(first), tensor_bytes(out)
    return "" if found == required else f"wrote {found} bytes of tensors; required: {required}"


def measure(argv: list[str], *, limit_s: float, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end, or to the limit; a failure is noted with the last that it said."""
    with tempfile.TemporaryFile() as said:
        begun = time.perf_counter()
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env={**os.environ, **(env or {})}
        )
        watch = Watch(process.pid)
        watch.start()
        limit = threading.Timer(limit_s, os.kill, (process.pid, 9))
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begun
        limit.cancel()
        watch.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        failed = f"status {process.returncode}: {said.read().decode(errors='replace')[-500:]}"
    return Cost(
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        private_mb=watch.private_kb * 1024 / 1e6,
        resident_mb=watch.resident_kb * 1024 / 1e6,
        failed=(failed if wall_s < limit_s else f"over {limit_s:g} s") if process.returncode else "",
    )


class Watch(threading.Thread):
    """Samples the memory of a process and of its descendants until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.private_kb = self.resident_kb = 0
        self._over = threading.Event()

    def run(self) -> None:
        """Sample now and every SAMPLE_S."""
        while True:
            seen = [memory(pid) for pid in tree(self.pid)]
            self.private_kb = max(self.private_kb, sum(m.get("RssAnon", 0) for m in seen))
            self.resident_kb = max(self.resident_kb, *(m.get("VmHWM", 0) for m in seen))
            if self._over.wait(SAMPLE_S):
                return

    def stop(self) -> None:
        """End the sampling."""
        self._over.set()
        self.join()


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants that are there now."""
    yield pid
    try:
        tasks = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it, or one of its threads, has ended; the next sample sees the rest
        return
    for child in " ".join(tasks).split():
        yield from tree(int(child))


def memory(pid: int) -> dict[str, int]:
    """The fields of a process's status that are in kB; none when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {
        key: int(rest.split()[0]) for key, _, rest in (x.partition(":") for x in lines if x.endswith(" kB"))
    }


def read_through(paths: list[Path]) -> None:
    """Read every file once, so that the page cache has it."""
    buffer = bytearray(1 << 23)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def drop(paths: list[Path]) -> None:
    """Take every file out of the page cache; dirty pages must be written before they can go."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_share(paths: list[Path]) -> float:
    """The share of the files' pages that the page cache has, by mincore."""
    libc = ctypes.CDLL(None, use_errno=True)
    there = pages = 0
    for path in paths:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
            held = np.zeros(-(-len(view) // mmap.PAGESIZE), np.uint8)
            seen = np.frombuffer(view, np.uint8)
            asked = (ctypes.c_void_p(seen.ctypes.data), ctypes.c_size_t(len(view)))
            if libc.mincore(*asked, ctypes.c_void_p(held.ctypes.data)):
                raise OSError(ctypes.get_errno(), f"mincore of {path}")
            del seen
            there += int((held & 1).sum())
            pages += len(held)
    return there / pages
