"""`python -m modelyard.ensemble integrate|backtest SPEC.json`: a step of a run.

SPEC.json names the tables, the groups, the settings and where to write. Status 1 and the reason on
standard error when the work cannot be done.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelyard.core.clock import Clock, stamp, utc_now
from modelyard.core.digests import digest_path
from modelyard.core.faults import Section, json_section
from modelyard.core.files import write_json, write_whole
from modelyard.core.verbs import carry_out
from modelyard.ensemble.learning.integrate import integrate_tables
from modelyard.ensemble.measuring.backtest import Backtest, backtest_digest, backtest_policy
from modelyard.ensemble.policies.policy import Excluded, read_policy, write_policy
from modelyard.ensemble.policies.settings import Settings, read_settings
from modelyard.results.tables import read_predictions, read_truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a step is told."""

    predictions: Path
    truth: Path
    groups: dict[str, str]
    excluded: tuple[Excluded, ...]
    settings: Settings
    models: dict[str, Any]  # digests of the models, by name
    policy: Path
    backtest: Path


def main(arguments: Sequence[str] | None = None, *, clock: Clock = utc_now) -> int:
    """Run one verb; the exit status."""
    verbs = {
        "integrate": lambda path: integrate(read_spec(path), clock),
        "backtest": lambda path: backtest(read_spec(path)),
    }
    return carry_out(arguments, verbs, room="ensemble", about=__doc__)


def read_spec(path: Path) -> Spec:
    """Read SPEC.json; paths are relative to the working directory.

    Raises:
        DocumentError: With every fault of the file.
    """
    section = json_section(path)
    groups = section.section("groups")
    spec = Spec(
        predictions=Path(section.text("predictions")),
        truth=Path(section.text("truth")),
        groups={name: groups.choice(name, "online", ("online", "offline")) for name in groups.data},
        excluded=tuple(_excluded(part) for part in section.sections("excluded")),
        settings=_settings(section),
        models=section.section("models").rest(),
        policy=Path(section.text("policy")),
        backtest=Path(section.text("backtest")),
    )
    section.close()
    section.faults.raise_if_any()
    return spec


def integrate(spec: Spec, clock: Clock) -> None:
    """Learn the policy and write it."""
    policy = integrate_tables(
        read_predictions(spec.predictions),
        read_truth(spec.truth),
        settings=spec.settings,
        groups=spec.groups,
        excluded=spec.excluded,
        created_at=stamp(clock()),
    )
    inputs = {"predictions": digest_path(spec.predictions), "truth": digest_path(spec.truth)}
    write_policy(
        spec.policy, replace(policy, digests={**policy.digests, "inputs": inputs, "models": spec.models})
    )


def backtest(spec: Spec) -> None:
    """Backtest the policy file, write the outputs, and note the losses in the policy."""
    policy = read_policy(spec.policy)
    result = backtest_policy(policy, read_predictions(spec.predictions), read_truth(spec.truth))
    write_backtest(spec.backtest, result)
    write_policy(spec.policy, replace(policy, backtest=backtest_digest(result.summary)))


def write_backtest(folder: Path, result: Backtest) -> None:
    """Write backtest.parquet and weights.parquet whole, and backtest.json last."""
    write_whole(folder / "backtest.parquet", result.rows.to_parquet(index=False))
    write_whole(folder / "weights.parquet", result.weights.to_parquet(index=False))
    write_json(folder / "backtest.json", result.summary)


def _excluded(section: Section) -> Excluded:
    found = Excluded(
        name=section.text("name"), reason=section.text("reason"), rows=section.integer("rows", 0, low=0)
    )
    section.close()
    return found


def _settings(section: Section) -> Settings:
    own = section.section("settings")
    found = read_settings(own)
    own.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
