"""The folder in which a merge is made: whole or not there, and taken up again after any death.

Everything is written into a hidden folder beside the output, tensors in place into shards of their
final size. A line in `done.jsonl` follows each finished tensor; on resumption the bytes of each are held
against its checksum, so that nothing is believed that did not reach the disk. The index and the
record of the merge come last, then one rename. Nothing here knows what is merged.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.artifacts.checkpoints import INDEX, SINGLE
from modelyard.artifacts.safetensors import DType, TensorInfo, layout
from modelyard.core.errors import MergeError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import read_json, write_json
from modelyard.merging.blocks import Sink
from modelyard.merging.kernels.checksum import Checksum
from modelyard.merging.tensors import Finding

RECORD = "merge.json"
_PLAN, _DONE = "plan.json", "done.jsonl"
#: Kept free beside the tensors, for headers and small files.
_SPARE_BYTES = 64 << 20
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of the output."""

    start: bytes
    infos: tuple[TensorInfo, ...]
    file_bytes: int

    @property
    def path(self) -> Path:
        """Where it is written."""
        return self.infos[0].path


def lay_out(
    tensors: Iterable[tuple[str, DType, Sequence[int]]], *, folder: Path, shard_bytes: int
) -> list[Shard]:
    """Divide tensors, in order, among files of at most so many bytes (a larger tensor has its own)."""
    groups: list[list[tuple[str, DType, Sequence[int]]]] = [[]]
    filled = 0
    for name, dtype, shape in tensors:
        size = int(np.prod(shape, dtype=np.int64)) * dtype.item_bytes if shape else dtype.item_bytes
        if groups[-1] and filled + size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append((name, dtype, shape))
        filled += size
    shards = []
    for number, group in enumerate(groups, start=1):
        name = SINGLE if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        start, infos, file_bytes = layout(group, path=folder / name, metadata={"format": "pt"})
        shards.append(Shard(start=start, infos=tuple(infos), file_bytes=file_bytes))
    return shards


def work_folder(out: Path) -> Path:
    """Where the merge into a folder is made."""
    return out.parent / f".{out.name}.merging"


@dataclass(slots=True, kw_only=True)
class Work:
    """A merge in the making; leave it by `publish` or by `close`."""

    out: Path
    folder: Path
    shards: Sequence[Shard]
    # What is finished, by tensor.
    done: dict[str, Finding] = field(default_factory=dict)
    _descriptors: dict[Path, int] = field(default_factory=dict)
    _log: int = -1

    def sink(self, info: TensorInfo) -> Sink:
        """Where a tensor goes."""
        return Sink(info=info, descriptor=self._descriptors[info.path])

    def note(self, name: str, finding: Finding) -> None:
        """A tensor is finished."""
        line = _line(name, finding)
        failpoint("merge.after_write")
        os.write(self._log, line.encode())
        self.done[name] = finding
        failpoint("merge.after_tensor")

    def publish(self, record: Mapping[str, Any], *, overwrite: bool) -> None:
        """Force everything to the disk, write index and record, and put the folder into its place."""
        for descriptor in self._descriptors.values():
            os.fsync(descriptor)
        failpoint("merge.before_index")
        if len(self.shards) > 1:
            places = {info.name: shard.path.name for shard in self.shards for info in shard.infos}
            total = sum(info.bytes for shard in self.shards for info in shard.infos)
            write_json(self.folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
        write_json(self.folder / RECORD, dict(record))
        self.close()
        failpoint("merge.before_rename")
        settle(self.out, overwrite=overwrite)
        failpoint("merge.after_rename")

    def close(self) -> None:
        """Close all files; what is finished stays for a resumption."""
        for descriptor in (*self._descriptors.values(), self._log):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptors.clear()
        self._log = -1


def open_work(
    out: Path, shards: Sequence[Shard], *, identity: Mapping[str, Any], resume: bool, overwrite: bool
) -> Work:
    """Make the folder, or take up what an earlier run of the same merge left.

    Args:
        out: Where the output will be.
        shards: Its files, laid out in `work_folder(out)`.
        identity: What makes it the same merge.
        resume: Go on with what is there; else it is removed.
        overwrite: Whether `out` may be there already.

    Raises:
        MergeError: `out` is in the way, another process is at it, what is there is of another merge,
            or the disk is too small.
    """
    check_place(out, overwrite=overwrite)
    folder = work_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    work = Work(out=out, folder=folder, shards=shards)
    try:
        if not resume:
            _emptied(folder, keep=())
        known = _known(folder, identity)
        # What a killed run left besides tensors, such as a file half written, is made anew.
        _emptied(folder, keep={_PLAN, _DONE, *(shard.path.name for shard in shards)})
        _check_space(folder, shards)
        work._descriptors.update((shard.path, _opened(shard)) for shard in shards)
        if known:
            work.done.update(_sound(folder, shards))
        else:
            write_json(folder / _PLAN, dict(identity))
        failpoint("merge.after_folder")
        work._log = _log(folder, work.done)
    except BaseException:
        work.close()
        raise
    return work


def check_place(out: Path, *, overwrite: bool) -> None:
    """Raise `MergeError` where nothing may be put: a file, the working directory, somebody's folder."""
    if (out.exists() and not out.is_dir()) or out == Path.cwd() or out == out.parent:
        raise MergeError(f"{out}: is a file or the working directory; give the name of a new folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise MergeError(f"{out}: is there already; give another folder, or --overwrite to replace it")
    if not (out / RECORD).exists() and not any(out.glob("*.safetensors")):
        raise MergeError(f"{out}: holds no checkpoint, and is not overwritten; give another folder")


@contextmanager
def held(out: Path, suffix: str = "merging") -> Iterator[None]:
    """Keep other processes away from an output. Raises `MergeError` where one is there."""
    path = out.parent / f".{out.name}.{suffix}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def settle(out: Path, *, overwrite: bool) -> None:
    """Rename the finished folder into place; what stood there goes only when it is replaced."""
    folder = work_folder(out)
    for name in (_DONE, _PLAN):
        (folder / name).unlink(missing_ok=True)
    _sync_folder(folder)
    aside = out.parent / f".{out.name}.replaced"
    if out.exists() and any(out.iterdir()) and overwrite:
        shutil.rmtree(aside, ignore_errors=True)
        out.rename(aside)
    folder.rename(out)
    _sync_folder(out.parent)
    shutil.rmtree(aside, ignore_errors=True)


def checksum_of(info: TensorInfo, descriptor: int) -> str:
    """The XXH64 of a stored tensor's bytes."""
    running, buffer = Checksum(), np.empty(_READ_BYTES, np.uint8)
    done = 0
    while done < info.bytes:
        part = buffer[: min(_READ_BYTES, info.bytes - done)]
        got = os.preadv(descriptor, [part.data], info.offset + done)
        if got < len(part):
            break  # cut short: the checksum of less cannot be the right one
        running.update(part, len(part), part.ctypes.data)
        done += got
    return running.value()


def _locked(path: Path) -> int:
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(lock).st_ino:
                return lock
        except OSError as error:
            os.close(lock)
            raise MergeError(
                f"{path}: another process is merging into that folder; wait for it, or give another output"
            ) from error
        os.close(lock)  # whoever held it removed it meanwhile


def _emptied(folder: Path, *, keep: Collection[str]) -> None:
    for entry in folder.iterdir():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _known(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the folder holds this merge, begun; false where nothing is there."""
    try:
        found = read_json(folder / _PLAN)
    except FileNotFoundError:
        _emptied(folder, keep=())
        return False
    except ValueError as error:
        raise MergeError(
            f"{folder / _PLAN}: cannot be read ({error}); run without --resume to begin anew"
        ) from error
    if found != json.loads(json.dumps(identity)):
        raise MergeError(
            f"{folder}: holds an unfinished merge of another recipe, other models or other settings; "
            "run without --resume to begin anew"
        )
    return True


def _check_space(folder: Path, shards: Sequence[Shard]) -> None:
    there = sum(shard.path.stat().st_blocks * 512 for shard in shards if shard.path.exists())
    needed = sum(shard.file_bytes for shard in shards) - there + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MergeError(
            f"{folder}: the merge needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
            "free the disk or give another folder"
        )


def _opened(shard: Shard) -> int:
    descriptor = os.open(shard.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.ftruncate(descriptor, shard.file_bytes)
    if hasattr(os, "posix_fallocate"):  # a full disk is met now; and writing costs half the system time
        os.posix_fallocate(descriptor, 0, shard.file_bytes)
    os.pwrite(descriptor, shard.start, 0)
    return descriptor


def _sound(folder: Path, shards: Sequence[Shard]) -> dict[str, Finding]:
    """What is noted as finished and has the bytes that it is noted with."""
    places = {info.name: info for shard in shards for info in shard.infos}
    try:
        lines = (folder / _DONE).read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    sound = {}
    descriptors = {shard.path: os.open(shard.path, os.O_RDONLY | os.O_CLOEXEC) for shard in shards}
    try:
        for line in lines:
            try:
                entry = json.loads(line)
                name = entry.pop("name")
                finding = Finding(
                    **{**entry, "not_finite": tuple(entry["not_finite"]), "inputs": tuple(entry["inputs"])}
                )
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # torn by a loss of power
            info = places.get(name) if isinstance(name, str) else None
            if info is not None and checksum_of(info, descriptors[info.path]) == finding.output:
                sound[name] = finding
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    return sound


def _log(folder: Path, done: Mapping[str, Finding]) -> int:
    """The log, with a line for each tensor that is finished and no other."""
    lines = "".join(_line(name, finding) for name, finding in done.items())
    temporary = folder / f"{_DONE}.new"
    temporary.write_text(lines)
    temporary.replace(folder / _DONE)
    return os.open(folder / _DONE, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


def _line(name: str, finding: Finding) -> str:
    record = {
        "name": name,
        "not_finite": finding.not_finite,
        "overflowed": finding.overflowed,
        "inputs": finding.inputs,
        "output": finding.output,
    }
    return json.dumps(record, separators=(",", ":")) + "\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
