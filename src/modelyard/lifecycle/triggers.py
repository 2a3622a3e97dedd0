"""When a yard is looked at again and what then trains anew: the keys `watch` and, of a member, `retrain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.faults import Faults, Section
from modelyard.training.members import Member, Scope, member_outputs

_LEAST_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrain:
    """What makes a member train anew, beside data that changed."""

    # Oldest that its model may become; None: no limit.
    age_s: float | None = None
    # Whether recent errors above those of validation count.
    drift: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """How often `up --watch` looks, how much truth a look at drift takes, how many old versions stay."""

    every_s: float = 3600.0
    # Newest blocks of one season that count as recent.
    recent: int = 7
    # Chance of any false alarm in one look, over all members.
    level: float = 0.05
    # Replaced versions of each output that stay when a round has ended.
    keep: int = 5


def read_watch(section: Section) -> WatchSettings:
    """Read `watch`."""
    every_s = section.duration("every", "1h")
    if every_s < _LEAST_EVERY_S:
        section.faults.add(
            section.key("every"), section.raw("every"), "is shorter than a second", "write 1s or more"
        )
    settings = WatchSettings(
        every_s=every_s,
        recent=section.integer("recent", 7, low=3, high=1000),
        level=section.number("level", 0.05, above=0.0, below=0.5),
        keep=section.integer("keep", 5, low=0, high=1_000_000),
    )
    section.close()
    return settings


def read_retrain(model: Section) -> Retrain | None:
    """Read a member's `retrain`; None where it has none."""
    if not model.has("retrain"):
        model.raw("retrain")
        return None
    section = model.section("retrain")
    retrain = Retrain(
        age_s=section.duration("age", None) if section.has("age") else None,
        drift=section.flag("drift", default=False),
    )
    section.raw("age")
    section.close()
    if retrain == Retrain():
        remedy = "give age, such as 7d, or drift: true, or leave retrain out"
        section.faults.add(section.path, dict(section.data), "never trains anything anew", remedy)
    return retrain


def check_retrain(
    members: Sequence[Member], retrain: Mapping[str, Retrain], scope: Scope, faults: Faults
) -> None:
    """Note members that cannot be trained anew, or whose old version could not be kept meanwhile."""
    for member in members:
        if member.name not in retrain:
            continue
        key = f"{member.key}.retrain"
        if not member.train:
            problem = "has nothing to run again: the model has no train command"
            faults.add(key, None, problem, "give its train command, or leave retrain out")
            continue
        outputs = {name: Path(output.path) for name, output in member_outputs(member, scope).items()}
        if not outputs.keys() - {"predictions"}:
            problem = (
                "needs an output of the training: it is what is set aside, and put back if training fails"
            )
            faults.add(key, None, problem, "declare it, such as outputs: {model: '{model_dir}/model'}")
        for name, path in outputs.items():
            if not path.is_relative_to(scope.run_dir):
                problem = "lies outside the run's folder, so that the old version cannot be kept"
                faults.add(f"{member.key}.outputs.{name}", str(path), problem, "write it into {model_dir}")
