"""What the ELPA report is made from: the files of one ensemble run, named by a spec, and what they hold.

pandas is loaded by loading a run, not by importing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.core.errors import PolicyError
from modelyard.core.faults import json_section
from modelyard.core.files import read_json
from modelyard.ensemble.report.headline import headline

if TYPE_CHECKING:
    import pandas as pd

FILES = ("backtest.json", "backtest.parquet", "weights.parquet")
_SCHEMA = "modelyard.backtest/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInputs:
    """The files of one ensemble run and what the report is called.

    `members` is a JSON list of `{name, group, status, attempts, train_s, predict_s, cpu_s, excluded}`, of
    which only `name` is required; None when the models were trained elsewhere. `command` reproduces the page.
    """

    policy: Path
    backtest: Path
    title: str
    members: Path | None = None
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the files hold; `lead` is the one that the pictures show, and the only one of `weights`."""

    policy: Mapping[str, Any]
    backtest: Mapping[str, Any]
    rows: pd.DataFrame
    weights: pd.DataFrame
    members: Sequence[Mapping[str, Any]]
    lead: int

    def ranking(self) -> list[dict[str, Any]]:
        """The headline rows, best first."""
        return headline(self.backtest)

    def best(self, group: str) -> str | None:
        """The expert of a group with the lowest error over the backtest, or None."""
        named = [row["name"] for row in self.ranking() if row["kind"] == "expert" and row["group"] == group]
        served = [name for name in named if f"expert:{name}" in self.rows.columns]
        return served[0] if served else None


def read_spec(path: Path) -> tuple[ReportInputs, Path]:
    """The inputs that a spec names and where the page goes; relative paths start at the spec's folder.

    Raises:
        DocumentError: With every fault of the spec.
    """
    section = json_section(path)
    folder = path.parent
    members = section.optional_text("members")
    inputs = ReportInputs(
        policy=folder / section.text("policy"),
        backtest=folder / section.text("backtest"),
        members=folder / members if members else None,
        title=section.text("title", "Ensemble report"),
        command=shlex.join(["python", "-m", "modelyard.ensemble.report", str(path)]),
    )
    out = folder / section.text("out")
    section.close()
    section.faults.raise_if_any()
    return inputs, out


def load_run(inputs: ReportInputs) -> Run:
    """Read the files.

    Raises:
        PolicyError: a file is missing, is not readable, or is of another kind.
    """
    import pandas as pd

    backtest = _json(inputs.backtest / "backtest.json")
    if backtest.get("schema") != _SCHEMA:
        raise PolicyError(
            f"{inputs.backtest / 'backtest.json'}: is {backtest.get('schema')!r}, but {_SCHEMA} is required"
        )
    # Before the tables: a process that ends while Arrow's threads start is aborted.
    policy, members = _json(inputs.policy), _json(inputs.members) if inputs.members else []
    lead = max(backtest["leads"])
    frames = []
    for name, kept in ((FILES[1], None), (FILES[2], [("lead", "==", lead)])):
        try:
            frames.append(pd.read_parquet(inputs.backtest / name, partitioning=None, filters=kept))
        except (OSError, ValueError) as error:
            raise PolicyError(f"{inputs.backtest / name}: cannot be read: {error}") from error
    rows, weights = frames
    return Run(
        policy=policy,
        backtest=backtest,
        rows=rows.sort_values(["series", "lead", "target_time"], ignore_index=True),
        weights=weights,
        members=members,
        lead=lead,
    )


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path}: cannot be read as JSON: {error}") from error
