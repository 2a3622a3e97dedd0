"""The public ELPA integrate config, read verbatim and with all its faults at once.

Its models carry one of an exponentially weighted score, a list of errors, or a CSV file of errors or
of truth and forecast. This module knows the format; what to make of it is `config_policy`'s matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from modelyard.core.faults import Faults, Section, json_section
from modelyard.ensemble.combining.lessons import Floats
from modelyard.ensemble.policies.policy import Excluded
from modelyard.ensemble.policies.settings import LONGEST_WINDOW, read_epsilon
from modelyard.jobs.step import is_name

GROUPS = ("online", "offline")
SOURCES = ("ewma_score", "error_values", "error_csv")
_TIMES = ("target_time", "time", "timestamp", "ds", "date")
_OFFSET = r"\d[T ]\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$"  # of a time that names its zone
_LARGEST = 1e150  # its square is still a number
_LEAST_COMMON = 0.1  # of the rows of the shortest model: what all have to share
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

    beta: float | None  # None: chosen on the validation rows
    dirty_interval: int
    amplitude_window: int
    mutant_epsilon: float | None
    models: tuple[ConfigModel, ...]
    excluded: tuple[Excluded, ...]
    warnings: tuple[str, ...] = ()


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
    section = json_section(path)  # with NaN, which excludes the model that has it
    faults = section.faults
    for name in _TOLERATED:
        section.raw(name)
    beta = section.number("beta", 0.7, above=0.0, below=1.0)
    dirty_interval = section.integer("dirty_interval", 3, low=0, high=LONGEST_WINDOW)
    amplitude_window = section.integer("amplitude_window", 6, low=1, high=LONGEST_WINDOW)
    epsilon = read_epsilon(section)
    rows = _read_models(section, path.parent)
    section.close()
    rows, warnings = _aligned(rows, faults)
    faults.raise_if_any()
    models, excluded = _split(rows)
    return ElpaConfig(
        beta=beta,
        dirty_interval=dirty_interval,
        amplitude_window=amplitude_window,
        mutant_epsilon=epsilon,
        models=models,
        excluded=excluded,
        warnings=warnings,
    )


def _read_models(section: Section, folder: Path) -> list[_Rows]:
    faults, rows = section.faults, []
    seen: set[str] = set()
    parts = section.sections("models")
    if not parts:
        faults.add("models", None, "holds no model", "list at least one model")
    for part in parts:
        name = part.text("name")
        group = part.choice("group", "online", GROUPS)
        _check_name(part, name, seen)
        seen.add(name.casefold())
        enabled = part.flag("enabled", default=True)
        score, table = _read_source(part, folder)
        part.close()
        if enabled and (table is not None or score is not None):
            rows.append(_Rows(name=name, group=group, key=part.path, table=table, score=score))
    return rows


def _check_name(part: Section, name: str, seen: set[str]) -> None:
    if name.casefold() in seen:
        remedy = "give every model its own name, different by more than case"
        part.faults.add(part.key("name"), name, "is used by two models", remedy)
    elif name and ("/" in name or not is_name(name)):
        remedy = "use letters, digits, dots, dashes and underscores, at most 100, a letter or digit first"
        part.faults.add(part.key("name"), name, "cannot name a model", remedy)


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
    if value > _LARGEST:
        _too_large(part, "ewma_score", value)
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
    large = [v for v in values if v is not None and _LARGEST < abs(v) < math.inf]
    if large:
        _too_large(part, "error_values", large[0])
        return None
    return pd.DataFrame(
        {"error": np.abs(np.array([math.nan if v is None else v for v in values], dtype=float))}
    )


def _too_large(part: Section, name: str, value: float) -> None:
    part.faults.add(
        part.key(name), value, "is too large", f"use a unit in which no number exceeds {_LARGEST:g}"
    )


def _read_csv(part: Section, folder: Path) -> pd.DataFrame | None:
    key, path = part.key("error_csv"), folder / part.text("error_csv")
    try:
        found = pd.read_csv(path, compression=None)  # never unpacked, whatever its name
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
    sizes = table.abs()
    large = ((sizes > _LARGEST) & (sizes < math.inf)).any(axis=1)
    if large.any():
        _too_large(part, "error_csv", float(sizes[large].iloc[0].max()))
        return None
    time = next((name for name in _TIMES if name in found), None)
    return table if time is None else _in_time_order(table, found[time], part, key)


def _in_time_order(
    table: pd.DataFrame, texts: pd.Series[Any], part: Section, key: str
) -> pd.DataFrame | None:
    """The table with its times: numbers where all are, else moments in UTC."""
    times = min(_as_numbers(texts), _as_moments(texts), key=lambda read: int(read.isna().sum()))
    wrong = times.isna()
    if wrong.any():
        row = int(np.argmax(wrong.to_numpy()))
        value = "" if pd.isna(texts.iloc[row]) else str(texts.iloc[row])
        problem = f"data row {row + 1}: {texts.name} is {'not a time' if value else 'empty'}"
        part.faults.add(key, value, problem, "write ISO 8601, or numbers in every row")
        return None
    repeated = times.duplicated()
    if repeated.any():
        part.faults.add(
            key, str(texts[repeated].iloc[0]), "is the time of two rows", "keep one row for each time"
        )
        return None
    return table.assign(time=times).sort_values("time", kind="stable")


def _as_numbers(texts: pd.Series[Any]) -> pd.Series[Any]:
    """The numbers, NaN where there is none."""
    numbers = pd.to_numeric(texts.astype(object).astype(str), errors="coerce")
    return numbers.where(np.isfinite(numbers.astype(float)))


def _as_moments(texts: pd.Series[Any]) -> pd.Series[Any]:
    """The moments, NaT where there is none; one without an offset is UTC.

    Those with and those without an offset are read apart: beside each other, pandas lends the offset of
    one row to the next.
    """
    written = texts.astype(object).where(texts.notna(), "").astype(str)
    offset = written.str.contains(_OFFSET)
    read = [
        pd.to_datetime(part, format="ISO8601", utc=True, errors="coerce")
        for part in (written[offset], written[~offset])
        if len(part)
    ]
    return pd.concat(read).reindex(texts.index)


def _wanted_columns(found: pd.DataFrame) -> list[str]:
    wanted = [name for name in ("abs_error", "y_true", "pred") if name in found]
    return wanted if "abs_error" in wanted or {"y_true", "pred"} <= set(wanted) else []


def _aligned(rows: list[_Rows], faults: Faults) -> tuple[list[_Rows], tuple[str, ...]]:
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
    return rows, ()


def _by_time(
    rows: list[_Rows], tables: Mapping[str, pd.DataFrame], faults: Faults
) -> tuple[list[_Rows], tuple[str, ...]]:
    common = set.intersection(*(set(table["time"]) for table in tables.values()))
    given = [len(table) for table in tables.values()]
    if not common:
        faults.add("models", None, "have no time in common", "give errors of the same period")
        return rows, ()
    if len(common) == max(given):
        warnings: tuple[str, ...] = ()
    elif len(common) < max(2, _LEAST_COMMON * min(given)):
        problem = f"have only {len(common)} times in common, too few to compare them"
        remedy = f"give errors of the same period: at least 2 rows and {_LEAST_COMMON:.0%} of the shortest"
        faults.add("models", _rows_given(tables), problem, remedy)
        return rows, ()
    else:
        warnings = (
            f"{len(common)} rows, those that all models have, are used; given: {_rows_given(tables)}",
        )
    kept = []
    for row in rows:
        table = row.table
        if table is not None:
            table = table[table["time"].isin(common)]
        kept.append(_Rows(name=row.name, group=row.group, key=row.key, table=table, score=row.score))
    return kept, warnings


def _rows_given(tables: Mapping[str, pd.DataFrame]) -> str:
    return ", ".join(f"{name} {len(table)}" for name, table in tables.items())


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
