"""Carrying out a plan: tensor after tensor by a few threads, into a folder that appears when it is whole."""

from __future__ import annotations

import json
import os
import resource
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelyard import __version__
from modelyard.artifacts.checkpoints import open_checkpoint
from modelyard.artifacts.safetensors import TensorInfo
from modelyard.core.digests import digest_json, digest_path
from modelyard.core.errors import MergeError
from modelyard.core.files import read_json
from modelyard.merging.blocks import BLOCK, CODES, OpenFiles, Sink, Workspace
from modelyard.merging.card import write_companions
from modelyard.merging.kernels.checksum import Checksum
from modelyard.merging.models import Model
from modelyard.merging.output import RECORD, Work, held, lay_out, open_work, settle, work_folder
from modelyard.merging.parts import Part, StoredPart
from modelyard.merging.planning import How, MergePlan, TensorTask
from modelyard.merging.tensors import Finding, Tensors

SCHEMA = "modelyard.merge/1"
#: Tensors that a message names.
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOptions:
    """How a merge is carried out; none of it but the seed changes a value."""

    threads: int = 2
    shard_bytes: int = 5_000_000_000
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    # Accept inputs with NaN or infinite values.
    allow_not_finite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a merge is, after a tensor."""

    name: str
    tensors: int
    of_tensors: int
    bytes: int
    of_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """What a merge left."""

    out: Path
    tensors: int
    bytes: int
    # Tensors that were taken over from an earlier, interrupted run.
    resumed: int
    warnings: tuple[str, ...]
    parents: Mapping[str, Any] = field(default_factory=dict)


def run_merge(
    plan: MergePlan,
    out: Path,
    options: MergeOptions,
    observe: Callable[[Progress], None] = lambda _item: None,
) -> MergeResult:
    """Carry out a plan.

    Args:
        plan: What to do.
        out: The folder that will hold the checkpoint.
        options: How.
        observe: Told after every tensor, from any thread, one at a time.

    Raises:
        MergeError: The output is in the way, the disk is too small, a method cannot work on a
            tensor, or an input has values that are not finite.
        CheckpointError: An input cannot be read.
    """
    out = Path(os.path.realpath(out))
    _check_apart(plan, out)
    with held(out):
        return _run(plan, out, options, observe)


def _run(
    plan: MergePlan, out: Path, options: MergeOptions, observe: Callable[[Progress], None]
) -> MergeResult:
    _allow_many_files()
    identity = _identity(plan, options)
    if options.resume and _finished(work_folder(out), identity) is not None:
        settle(out, overwrite=options.overwrite)  # killed between the record and the rename
    if options.resume and (earlier := _finished(out, identity)) is not None:
        return _result(plan, out, warnings=tuple(earlier["warnings"]), parents=earlier["parents"])
    shards = lay_out(
        ((task.name, task.dtype, task.shape) for task in plan.tasks),
        folder=work_folder(out),
        shard_bytes=options.shard_bytes,
    )
    infos = {info.name: info for shard in shards for info in shard.infos}
    work = open_work(out, shards, identity=identity, resume=options.resume, overwrite=options.overwrite)
    try:
        resumed = len(work.done)
        _Crew(plan, work, infos, options, observe).run()
        warnings = (*plan.warnings, *_not_finite(plan, work.done, options), *_overflowed(work.done))
        if _identity(plan, options) != identity:
            raise MergeError("an input changed while it was read; leave the inputs alone and merge again")
        parents = _parents(plan, work.done)
        warnings = (*warnings, *write_companions(plan, work.folder))
        record = {
            "schema": SCHEMA,
            "modelyard": __version__,
            "identity": identity,
            "parents": parents,
            **({"side_files": {str(p): digest_path(p) for p in plan.side_files}} if plan.side_files else {}),
            "warnings": list(warnings),
            "tensors": {task.name: work.done[task.name].output for task in plan.tasks},
        }
        work.publish(record, overwrite=options.overwrite)
    finally:
        work.close()
    return _result(plan, out, warnings=warnings, parents=parents, resumed=resumed)


def _finished(out: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of the same merge where it was made already."""
    if not (out / RECORD).is_file():
        return None
    record = read_record(out)
    if record["identity"] != json.loads(json.dumps(identity)):
        return None
    if set(open_checkpoint(out).tensors) != set(record["tensors"]):
        raise MergeError(f"{out}: lacks tensors that its merge wrote; remove it, or merge with --overwrite")
    return record


def _allow_many_files() -> None:
    """Every shard is open at once: take as many descriptors as the system grants without asking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_apart(plan: MergePlan, out: Path) -> None:
    """An output must be no input, and no folder around one."""
    for model in plan.models:
        files = (*model.checkpoint.files, *(model.adapter.files if model.adapter else ()))
        if any(out in path.resolve().parents for path in files):
            raise MergeError(f"{out}: holds the model {model.ref}; give a folder apart from the models")


def _result(
    plan: MergePlan,
    out: Path,
    *,
    warnings: tuple[str, ...],
    parents: Mapping[str, Any],
    resumed: int | None = None,
) -> MergeResult:
    count = len(plan.tasks)
    return MergeResult(
        out=out,
        tensors=count,
        bytes=plan.output_bytes,
        resumed=count if resumed is None else resumed,
        warnings=warnings,
        parents=parents,
    )


class _Crew:
    """The threads of one merge, and what they take from and give to one another."""

    def __init__(
        self, plan: MergePlan, work: Work, infos: Mapping[str, TensorInfo], options: MergeOptions,
        observe: Callable[[Progress], None],
    ) -> None:  # fmt: skip
        self._plan, self._work, self._infos, self._options, self._observe = (
            plan,
            work,
            infos,
            options,
            observe,
        )
        self._files = OpenFiles()
        self._lock = threading.Lock()
        self._queue: Iterator[TensorTask] = iter([task for task in plan.tasks if task.name not in work.done])
        self._bytes = sum(infos[name].bytes for name in work.done)
        self._of_bytes = plan.output_bytes
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Merge every tensor that is not finished; the first failure stops all."""
        threads = [threading.Thread(target=self._work_off) for _ in range(self._options.threads - 1)]
        try:
            for thread in threads:
                thread.start()
            self._work_off()
        except BaseException as error:
            self._failure = self._failure or error
            raise
        finally:
            for thread in threads:
                thread.join()
            self._files.close()
        if self._failure is not None:
            raise self._failure

    def _work_off(self) -> None:
        space = Workspace()
        try:
            while (task := self._next()) is not None:
                finding = self._merged(task, space)
                with self._lock:
                    self._finish(task, finding)
        except BaseException as error:  # noqa: BLE001  (handed over to the thread that waits)
            with self._lock:
                self._failure = self._failure or error

    def _next(self) -> TensorTask | None:
        with self._lock:
            return None if self._failure is not None else next(self._queue, None)

    def _finish(self, task: TensorTask, finding: Finding) -> None:
        self._work.note(task.name, finding)
        self._bytes += self._infos[task.name].bytes
        self._observe(
            Progress(
                name=task.name,
                tensors=len(self._work.done),
                of_tensors=len(self._plan.tasks),
                bytes=self._bytes,
                of_bytes=self._of_bytes,
            )
        )

    def _merged(self, task: TensorTask, space: Workspace) -> Finding:
        sink = self._work.sink(self._infos[task.name])
        with self._lock:
            sources = [part.open(self._files) for part in task.parts]
            base = task.base.open(self._files) if task.base else None
        if task.how is How.COPY:
            return _copied(task.parts[0], self._files, sink, space)
        tensors = Tensors(
            sources=sources,
            base=base,
            sink=sink,
            values=task.values,
            workspace=space,
            seed=self._options.seed,
        )
        if task.how is How.CONVERT:
            tensors.weighted_sum([1.0])
        else:
            with np.errstate(all="ignore"):  # what is not finite is counted and told
                self._plan.method.run(tensors)
        return tensors.finding()


def _copied(part: Part, files: OpenFiles, sink: Sink, space: Workspace) -> Finding:
    """Take a tensor's bytes over as they are."""
    source, checksum, buffer = part.open(files), Checksum(), space.input(0)
    code, wide, wrong = CODES.get(sink.info.dtype), np.empty(BLOCK), 0
    for begin in range(0, sink.info.size, BLOCK):
        count = min(BLOCK, sink.info.size - begin)
        data = buffer[: count * sink.info.dtype.item_bytes]
        source.read(begin, count, data.data)
        sink.write(begin, data.data)
        checksum.update(data, len(data), buffer.ctypes.data)
        if code is not None:
            wrong += space.kernels.widen(buffer.ctypes.data, code, count, wide.ctypes.data)
    value = checksum.value()
    return Finding(not_finite=(wrong,), overflowed=0, inputs=(value,), output=value)


def _identity(plan: MergePlan, options: MergeOptions) -> dict[str, Any]:
    """What makes two merges the same: recipe, inputs, seed, files."""
    return {
        "recipe": asdict(plan.recipe),
        "method": plan.method.name,
        "seed": options.seed,
        "shard_bytes": options.shard_bytes,
        "inputs": digest_json([*map(_input_identity, plan.models), *_files_identity(plan.side_files)]),
    }


def _input_identity(model: Model) -> list[Any]:
    """What makes a model the same: place, size and time of its files; of an earlier merge, its checksums."""
    if model.stage and (model.checkpoint.folder / RECORD).exists():
        return [str(model.ref), read_record(model.checkpoint.folder)["tensors"]]
    files = (*model.checkpoint.files, *(model.adapter.files if model.adapter else ()))
    beside = [
        path
        for path in sorted(model.checkpoint.folder.iterdir())
        if path.suffix in (".json", ".jinja", ".model", ".txt") and path.is_file()
    ]
    return _files_identity((*files, *beside))


def _files_identity(files: Sequence[Path]) -> list[Any]:
    return [[os.fsencode(f.resolve()).hex(), f.stat().st_size, str(f.stat().st_mtime_ns)] for f in files]


def _parents(plan: MergePlan, done: Mapping[str, Finding]) -> dict[str, Any]:
    """Each model's digest: of the checksums of those of its stored tensors that the merge read."""
    read: dict[Path, dict[str, str]] = {}
    for task in plan.tasks:
        parts: Sequence[Part] = (*task.parts, *([task.base] if task.base else []))
        for part, checksum in zip(parts, done[task.name].inputs, strict=True):
            if isinstance(part, StoredPart) and checksum:
                read.setdefault(part.info.path, {})[part.info.name] = checksum
    parents: dict[str, Any] = {}
    for model in plan.models:
        sums = {name: value for path in model.checkpoint.files for name, value in read.get(path, {}).items()}
        parents[str(model.ref)] = {
            "path": None if model.stage else str(model.checkpoint.path.resolve()),
            "tensors": len(model.checkpoint.tensors),
            "tensors_read": len(sums),
            "digest": digest_json(sums),
        }
        if model.adapter:
            digests = {path.name: digest_path(path) for path in model.adapter.files}
            parents[str(model.ref)]["adapter"] = {"path": model.ref.lora, "digest": digest_json(digests)}
    return parents


def _not_finite(plan: MergePlan, done: Mapping[str, Finding], options: MergeOptions) -> list[str]:
    found = [(name, sum(f.not_finite)) for name, f in done.items() if any(f.not_finite)]
    if not found:
        return []
    shown = ", ".join(f"{name} ({count})" for name, count in found[:_SHOWN])
    told = f"values that are NaN or infinite in the inputs of {len(found)} tensors: {shown}"
    if not options.allow_not_finite:
        raise MergeError(
            f"{told}; mend the models ({plan.recipe.method} would spread them), or give --allow-not-finite"
        )
    return [told]


def _overflowed(done: Mapping[str, Finding]) -> list[str]:
    found = [(name, f.overflowed) for name, f in done.items() if f.overflowed]
    if not found:
        return []
    shown = ", ".join(f"{name} ({count})" for name, count in found[:_SHOWN])
    return [f"results beyond the output type's range in {len(found)} tensors: {shown}; choose a wider dtype"]


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the merge that made a folder. Raises `MergeError` where there is none."""
    place = folder / RECORD
    try:
        record = read_json(place)
    except (OSError, ValueError) as error:
        raise MergeError(f"{place}: cannot be read ({error}); give the output of a merge") from error
    forms = {"tensors": dict, "identity": dict, "parents": dict, "warnings": list}
    if isinstance(record, dict) and all(isinstance(record.get(k), form) for k, form in forms.items()):
        return record
    raise MergeError(f"{place}: is not the record of a merge; give the output of a merge")
