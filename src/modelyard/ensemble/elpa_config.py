"""The public ELPA integrate config, read verbatim and with all its faults at once.

Its models carry one of an exponentially weighted score, a list of errors, or a CSV file of errors or
of truth and forecast. This module knows the format; what to make of it is `config_policy`'s matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from modelyard.core.faults import Faults, Section, read_json_document
from modelyard.ensemble.policy import Excluded
from modelyard.ensemble.rules import Floats
from modelyard.ensemble.settings import read_epsilon

GROUPS = ("online", "offline")
SOURCES = ("ewma_score", "error_values", "error_csv")
_TIMES = ("target_time", "time", "timestamp", "ds", "date")
_TOLERATED = ("skill", "created_at", "dataset", "run_dir", "horizon", "period", "seed")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfigModel:
    """One usable model of the config."""

    name: str
    group: str
    score: float | None  # given as it is
    errors: Floats | None  # |e| in time order
    truth: Floats | None  # beside forecast, where the file has them
    forecast: Floats | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ElpaConfig:
    """The config of the public skill's integrate command."""

    beta: float
    dirty_interval: int
    amplitude_window: int
    mutant_epsilon: float | None
    models: tuple[ConfigModel, ...]
    excluded: tuple[Excluded, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """What a model's source holds before rows are aligned and checked."""

    name: str
    group: str
    key: str  # of the model in the document
    table: pd.DataFrame | None  # columns error, and y_true, pred, time where known
    score: float | None


def read_elpa_config(path: Path) -> ElpaConfig:
    """Read a config file; paths in it are relative to its folder.

    Raises:
        DocumentError: With every fault of the document and of the error files it names.
    """
    faults = Faults(file=str(path))
    document = read_json_document(path, faults)  # with NaN, which excludes the model that has it
    faults.raise_if_any()
    section = Section(document, faults=faults)
    for name in _TOLERATED:
        section.raw(name)
    beta = section.number("beta", 0.7, above=0.0, below=1.0)
    dirty_interval = section.integer("dirty_interval", 3, low=0)
    amplitude_window = section.integer("amplitude_window", 6, low=1)
    epsilon = read_epsilon(section)
    rows = _read_models(section, path.parent)
    section.close()
    rows = _aligned(rows, faults)
    faults.raise_if_any()
    models, excluded = _split(rows)
    return ElpaConfig(
        beta=beta,
        dirty_interval=dirty_interval,
        amplitude_window=amplitude_window,
        mutant_epsilon=epsilon,
        models=models,
        excluded=excluded,
    )


def _read_models(section: Section, folder: Path) -> list[_Rows]:
    faults, rows, seen = section.faults, [], set()
    parts = section.sections("models")
    if not parts:
        faults.add("models", None, "holds no model", "list at least one model")
    for part in parts:
        name = part.text("name")
        group = part.choice("group", "online", GROUPS)
        if name in seen:
            faults.add(part.key("name"), name, "is used by two models", "give every model its own name")
        seen.add(name)
        enabled = part.flag("enabled", default=True)
        score, table = _read_source(part, folder)
        part.close()
        if enabled and (table is not None or score is not None):
            rows.append(_Rows(name=name, group=group, key=part.path, table=table, score=score))
    return rows


def _read_source(part: Section, folder: Path) -> tuple[float | None, pd.DataFrame | None]:
    given = [name for name in SOURCES if part.raw(name) is not None]
    if len(given) != 1:
        problem = f"gives {' and '.join(given)}" if given else "gives no errors"
        part.faults.add(part.path, None, problem, f"give exactly one of {', '.join(SOURCES)}")
        return None, None
    if given == ["ewma_score"]:
        return _read_score(part), None
    if given == ["error_values"]:
        return None, _read_values(part)
    return None, _read_csv(part, folder)


def _read_score(part: Section) -> float | None:
    value = part.raw("ewma_score")
    if isinstance(value, float) and not math.isfinite(value):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        part.faults.add(part.key("ewma_score"), value, "is not a score", "write a number of at least 0")
        return None
    return float(value)


def _read_values(part: Section) -> pd.DataFrame | None:
    values = part.raw("error_values")
    if not isinstance(values, list) or not values:
        part.faults.add(
            part.key("error_values"), values, "is not a list of errors", "write a list of numbers"
        )
        return None
    wrong = [v for v in values if v is not None and (isinstance(v, bool) or not isinstance(v, int | float))]
    if wrong:
        part.faults.add(part.key("error_values"), wrong[0], "is not a number", "write numbers only")
        return None
    return pd.DataFrame(
        {"error": np.abs(np.array([math.nan if v is None else v for v in values], dtype=float))}
    )


def _read_csv(part: Section, folder: Path) -> pd.DataFrame | None:
    key, path = part.key("error_csv"), folder / part.text("error_csv")
    try:
        found = pd.read_csv(path)
    except OSError as error:
        part.faults.add(key, str(path), f"cannot be read ({error.strerror})", "check the path", here=True)
        return None
    except (ValueError, pd.errors.ParserError) as error:
        part.faults.add(key, str(path), f"is not a CSV file ({error})", "write a header line and rows")
        return None
    return _csv_rows(found, part, key)


def _csv_rows(found: pd.DataFrame, part: Section, key: str) -> pd.DataFrame | None:
    numbers = {name: pd.to_numeric(found[name], errors="coerce") for name in _wanted_columns(found)}
    if not numbers:
        remedy = "give a column abs_error, or y_true and pred"
        part.faults.add(key, list(map(str, found.columns)), "has no errors in its columns", remedy)
        return None
    if not len(found):
        part.faults.add(key, None, "holds no row", "write at least one row of errors")
        return None
    table = pd.DataFrame(numbers)
    table["error"] = (
        table["abs_error"].abs() if "abs_error" in table else (table["y_true"] - table["pred"]).abs()
    )
    time = next((name for name in _TIMES if name in found), None)
    if time is not None:
        table["time"] = found[time].astype(str)
        if table["time"].duplicated().any():
            repeated = table.loc[table["time"].duplicated(), "time"].iloc[0]
            part.faults.add(key, repeated, "is the time of two rows", "keep one row for each time")
    return table


def _wanted_columns(found: pd.DataFrame) -> list[str]:
    wanted = [name for name in ("abs_error", "y_true", "pred") if name in found]
    return wanted if "abs_error" in wanted or {"y_true", "pred"} <= set(wanted) else []


def _aligned(rows: list[_Rows], faults: Faults) -> list[_Rows]:
    """Put every model's errors on the same rows: by time where all have one, else by equal length."""
    tables = {row.name: row.table for row in rows if row.table is not None}
    if len(tables) > 1 and all("time" in table for table in tables.values()):
        return _by_time(rows, tables, faults)
    lengths = {name: len(table) for name, table in tables.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name}: {n}" for name, n in lengths.items())
        faults.add(
            "models",
            shown,
            "have errors on different numbers of rows, so their scores cannot be compared",
            f"use the same rows for all, or an error_csv with a time column ({', '.join(_TIMES)}) for each",
        )
    return rows


def _by_time(rows: list[_Rows], tables: Mapping[str, pd.DataFrame], faults: Faults) -> list[_Rows]:
    common = set.intersection(*(set(table["time"]) for table in tables.values()))
    if not common:
        faults.add("models", None, "have no time in common", "give errors of the same period")
        return rows
    kept = []
    for row in rows:
        table = row.table
        if table is not None:
            table = table[table["time"].isin(common)].sort_values("time", kind="stable")
        kept.append(_Rows(name=row.name, group=row.group, key=row.key, table=table, score=row.score))
    return kept


def _split(rows: list[_Rows]) -> tuple[tuple[ConfigModel, ...], tuple[Excluded, ...]]:
    models, excluded = [], []
    for row in rows:
        errors = np.array([row.score]) if row.table is None else row.table["error"].to_numpy(dtype=float)
        bad = int((~np.isfinite(errors.astype(float))).sum())
        if bad:
            excluded.append(Excluded(name=row.name, reason="non-finite errors", rows=bad))
            continue
        both = row.table is not None and {"y_true", "pred"} <= set(row.table.columns)
        models.append(
            ConfigModel(
                name=row.name,
                group=row.group,
                score=row.score,
                errors=None if row.table is None else errors,
                truth=row.table["y_true"].to_numpy(dtype=float) if both and row.table is not None else None,
                forecast=row.table["pred"].to_numpy(dtype=float) if both and row.table is not None else None,
            )
        )
    return tuple(models), tuple(excluded)
