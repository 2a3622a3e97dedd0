"""Holding a merged checkpoint against the record that its merge left: every tensor, every byte."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from modelyard.artifacts.checkpoints import open_checkpoint
from modelyard.merging.engine import read_record
from modelyard.merging.output import RECORD, checksum_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verification found."""

    tensors: int
    faults: tuple[str, ...]


def verify_merge(folder: Path) -> Verdict:
    """Read all tensors of a merge's output and compare their checksums.

    Raises:
        MergeError: The folder has no record of a merge.
        CheckpointError: Its files are no checkpoint any more.
    """
    expected = read_record(folder)["tensors"]
    tensors = open_checkpoint(folder).tensors
    faults = [f"{name}: is not in {RECORD}" for name in tensors if name not in expected]
    descriptors: dict[Path, int] = {}
    try:
        for name, checksum in expected.items():
            info = tensors.get(name)
            if info is None:
                faults.append(f"{name}: is missing")
                continue
            if info.path not in descriptors:
                descriptors[info.path] = os.open(info.path, os.O_RDONLY | os.O_CLOEXEC)
            found = checksum_of(info, descriptors[info.path])
            if found != checksum:
                faults.append(f"{name}: has XXH64 {found} where the merge wrote {checksum}")
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    return Verdict(tensors=len(tensors), faults=tuple(faults))
