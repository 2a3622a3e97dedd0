"""`query_status`: how far a search has come, for any process, while it goes on or after.

It reads runs of `AutoMLRunner` and sessions of `AutoML`; it takes no lock, waits for nobody, makes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.core.errors import TuneError
from modelyard.core.files import read_json
from modelyard.tuning.study import Stored, read_stored
from modelyard.tuning.tao.history import run_history, session_history
from modelyard.tuning.tao.record import RECORD_FILE, newest, read_record
from modelyard.tuning.tao.result import status_record

_DATABASE, _BEGINS = "study.db", b"SQLite format 3\0"


def query_status(workspace_path: str | Path) -> dict[str, Any]:
    """How far a search has come: experiment_id, progress, best, recommendations, active_jobs and more.

    What `AutoML.get_status` tells is in it, with the same values.

    Args:
        workspace_path: The folder of a run or of a session; or that of a workspace, of whose runs and
            sessions the one is told that was written to last.

    Returns:
        The status; a mapping with `error` alone where there is no search.

    Raises:
        TuneError: What is there is damaged.
    """
    base = Path(workspace_path).absolute()
    folder = base if (base / RECORD_FILE).exists() else newest(base)
    if folder is None:
        return {"error": f"no AutoML state found at {workspace_path}"}
    import optuna
    import sqlalchemy

    stored = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)
    try:
        return _status(folder)
    except (OSError, ValueError, LookupError, *stored) as error:
        raise TuneError(
            f"{folder}: what is kept of the search cannot be read ({error}); restore it from a copy"
        ) from error


def _status(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    name = str(read_json(folder / "run.json")["run"])
    stored = _stored(folder / _DATABASE, name)
    trials = [trial for trial, _ in stored.trials]
    if record.kind == "session":
        recs = session_history(trials, stored.attributes.__getitem__, record)
    else:
        recs = run_history(folder, stored.trials, record.settings)
    return status_record(trials, recs, record.settings, total=record.total(len(recs)), name=folder.name)


def _stored(path: Path, name: str) -> Stored:
    """What a storage that is there holds."""
    with path.open("rb") as file:
        if file.read(len(_BEGINS)) != _BEGINS:  # what is empty would be made when it is opened
            raise ValueError(f"{path.name} is no database")
    return read_stored(f"sqlite:///{path}", name)
