"""A policy at work on tables: its forecasts for every origin from the end of its validation on.

It learns on the way, from every truth that the table holds, and looks no further than each origin. The
result has the columns of the predictions table, so that a policy can be a member of another pool, and the
bounds of its conformal intervals beside them. No files but the ones it is given to read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.core.errors import PolicyError, TableError
from modelyard.ensemble.policies.policy import Policy
from modelyard.ensemble.runtime.matrix import AlignedMatrix, SeriesMatrix, build_matrix
from modelyard.ensemble.runtime.replay import replay
from modelyard.results.tables import PREDICTIONS, read_predictions, read_truth

NAME = "policy"
_SUFFIXES = (".parquet", ".csv")
_BOUNDS = ("lower", "upper")


def read_folder(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The predictions and the truth in a folder.

    Args:
        folder: Holds `truth.parquet` or `.csv`, and `predictions.parquet` or `.csv` with a column `model`,
            or a file for each model, named by it.

    Raises:
        TableError: The truth or every prediction is missing, or a file cannot be read.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES) if folder.is_dir() else []
    truths = [path for path in files if path.stem == "truth"]
    if len(truths) != 1:
        raise TableError(f"{folder}: holds {len(truths)} tables named truth; give one, Parquet or CSV")
    tables = [_with_model(path) for path in files if path.stem != "truth"]
    if not tables:
        raise TableError(
            f"{folder}: holds no predictions; give predictions.parquet, or a file for each model"
        )
    return pd.concat(tables, ignore_index=True), read_truth(truths[0])


def forecast_table(policy: Policy, predictions: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """The policy's forecasts, `PREDICTIONS` columns and `lower`, `upper`.

    Args:
        policy: Learnt by `integrate_tables`.
        predictions: The same table, reaching further; forecasts beyond the last truth are used too.
        truth: The same.

    Raises:
        PolicyError: The policy cannot run.
        TableError: The tables are inconsistent.
    """
    if policy.horizon is None or policy.step_s is None:
        raise PolicyError(
            "the policy was integrated from errors alone and cannot be run; integrate from tables"
        )
    groups = dict.fromkeys(policy.online_models, "online") | dict.fromkeys(policy.offline_models, "offline")
    longer = _lengthened(truth, policy.horizon, policy.step_s)
    matrix = build_matrix(predictions, longer, groups=groups, horizon=policy.horizon, step_s=policy.step_s)
    matrix = matrix.fresh(policy.max_staleness_s)
    parts = [_one_series(policy, matrix, part) for part in matrix.parts]
    return pd.concat(parts, ignore_index=True)


def to_parquet(frame: pd.DataFrame) -> bytes:
    """The table as Parquet, with the schema of predictions and the bounds behind it."""
    schema = PREDICTIONS.schema
    for name in _BOUNDS:
        schema = schema.append(pa.field(name, pa.float64()))
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(PREDICTIONS.schema.metadata), sink, compression="zstd")
    return bytes(sink.getvalue())


def _with_model(path: Path) -> pd.DataFrame:
    table = read_predictions(path)
    return table if "model" in table else table.assign(model=path.stem)


def _lengthened(truth: pd.DataFrame, horizon: int, step_s: float) -> pd.DataFrame:
    """The truth with `horizon` unknown values behind each series, so that the last origins have targets."""
    steps = pd.to_timedelta(step_s, unit="s") * np.arange(1, horizon + 1)
    ends = pd.to_datetime(truth["target_time"], utc=True).groupby(truth["series"]).max()
    more = [pd.DataFrame({"series": s, "target_time": end + steps, "y": np.nan}) for s, end in ends.items()]
    return pd.concat([truth, *more], ignore_index=True)


def _one_series(policy: Policy, matrix: AlignedMatrix, part: SeriesMatrix) -> pd.DataFrame:
    times, leads = matrix.times(part), matrix.horizon
    engine = policy.engine(part.series)  # tells where the series is not known
    stands = pd.Timestamp(policy.series[part.series].until)
    first = matrix.index_of(part, stands)
    if first >= len(times) - leads or times[first] != stands:
        raise TableError(
            f"the truth of series {part.series!r} goes from {times[0]} to {times[-1 - leads]} and does not "
            f"hold {stands}, where the policy stands; give the table it learnt from, or a longer one"
        )
    issued = [(first, engine.issue(part.origin(first))), *replay(engine, part, first + 1, len(times) - leads)]
    rows = [origin for origin, _ in issued]
    y = np.array([one.forecast_h for _, one in issued])
    radius = np.array([one.radius_h for _, one in issued])
    origin, lead = (grid.ravel() for grid in np.meshgrid(rows, np.arange(1, leads + 1), indexing="ij"))
    frame = pd.DataFrame(
        {
            "model": NAME,
            "series": part.series,
            "origin": times[origin],
            "lead": lead.astype(np.int32),
            "target_time": times[origin + lead],
            "issued_at": times[origin],
            "y_pred": y.ravel(),
            "lower": (y - radius).ravel(),
            "upper": (y + radius).ravel(),
        }
    )
    served: pd.DataFrame = frame[np.isfinite(y.ravel())]
    return served
