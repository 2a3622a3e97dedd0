"""Going on from another trial's checkpoint: where it is, and how the training is told.

A trial that is promoted is a job of its own. Its specification names the checkpoint that its parent's job
left: at `train.resume_training_checkpoint_path`, with `train.resume` set where there is such a switch, or at
`train.resume` itself. A skill without any such place trains from the beginning, to the larger budget.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.tuning.tao.checkpoints import checkpoint_of, listed_checkpoints, local_checkpoints
from modelyard.tuning.tao.measuring import asked, local_place
from modelyard.tuning.tao.skill import Skill
from modelyard.tuning.tao.specs import Specs, placed, value_at

_PATHS = ("train.resume_training_checkpoint_path", "resume_training_checkpoint_path")
_SWITCHES = ("train.resume", "resume")
#: Where a job in a container has its results when they are on a disk of this machine.
_MOUNTED = "/results"
#: PyTorch is to load what the search itself has made: optimisers and schedulers, not weights alone.
ENVIRONMENT = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
#: Trainings that count a restored epoch once more: their budget is so much larger.
_COUNTED_AGAIN = {"nvpanoptix3d": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePlace:
    """Where a specification names the checkpoint to go on from; empty: it has no such place."""

    path: str = ""
    switch: str = ""

    def __bool__(self) -> bool:
        return bool(self.path or self.switch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """The trial that another one goes on from."""

    # The SDK's id of its job.
    job_id: str
    # The epochs that it had behind it.
    epoch: int


def resume_place(skill: Skill, specs: Specs) -> ResumePlace:
    """The place in a skill's specification."""
    known = skill.known_keys

    def first(names: tuple[str, ...]) -> str:
        return next((n for n in names if n in known or value_at(specs, n) is not None), "")

    return ResumePlace(path=first(_PATHS), switch=first(_SWITCHES))


def can_find(sdk: object, platform: Mapping[str, Any]) -> bool:
    """Whether anything tells where a job's checkpoints are."""
    ways = ("get_checkpoints", "get_job_results_dir")
    return _mounted(platform) is not None or any(callable(getattr(sdk, way, None)) for way in ways)


def checkpoint_in(
    sdk: object, platform: Mapping[str, Any], ancestor: Ancestor, *, place: ResumePlace, network: str
) -> str | None:
    """The checkpoint that a job left, as another job of the platform sees it; None where none is found.

    Looked for in results that the platform mounts from this machine, then in what the SDK lists, then in
    the job's folder of results where that is on this machine.
    """
    folders = not place.path
    host = _mounted(platform)
    if host is not None:
        found = _chosen(host / ancestor.job_id, ancestor, folders=folders, network=network)
        if found is not None:
            return f"{_MOUNTED}/{Path(found).relative_to(host).as_posix()}"
    results = asked(sdk, "get_job_results_dir", ancestor.job_id)
    told = results if isinstance(results, str) else ""
    listed = asked(sdk, "get_checkpoints", ancestor.job_id)
    candidates = listed_checkpoints(listed if isinstance(listed, list | tuple) else (), told)
    chosen = checkpoint_of(candidates, epoch=ancestor.epoch, folders=folders)
    own = local_place(told) if told else None
    if chosen is not None or own is None:
        return chosen
    return _chosen(own, ancestor, folders=folders, network=network)


def resumed(specs: Specs, place: ResumePlace, checkpoint: str, *, network: str) -> dict[str, Any]:
    """The specification with the checkpoint named in it."""
    own = copy.deepcopy(dict(specs))
    if place.path:
        placed(own, place.path, checkpoint)
    if place.switch:
        placed(own, place.switch, True if place.path else checkpoint)
    epochs, more = value_at(own, "train.num_epochs"), _COUNTED_AGAIN.get(network, 0)
    if more and isinstance(epochs, int):
        placed(own, "train.num_epochs", epochs + more)
    return own


def _chosen(folder: Path, ancestor: Ancestor, *, folders: bool, network: str) -> str | None:
    found = checkpoint_of(local_checkpoints(folder), epoch=ancestor.epoch, folders=folders)
    if found is None:
        return None
    policy = Path(found) / "policy"  # below an epoch's folder, cosmos-rl keeps what it goes on from here
    holds = network.replace("_", "-") == "cosmos-rl" and (policy / "cosmos_config").is_file()
    return str(policy) if holds else found


def _mounted(platform: Mapping[str, Any]) -> Path | None:
    """The folder of this machine that jobs see as their results."""
    for mount in platform.get("mounts") or ():
        if isinstance(mount, Mapping) and str(mount.get("container_path", "")).rstrip("/") == _MOUNTED:
            return Path(str(mount["host_path"])) if mount.get("host_path") else None
    return None
