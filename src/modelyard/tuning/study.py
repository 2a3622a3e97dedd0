"""The study: its trials in Optuna's storage, and the lock under which the next one is proposed.

A trial enters the storage in one piece with all its coordinates, so that none is ever half proposed.
What an optimiser does not need stands in user attributes, so that Optuna's own tools read the rest.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import TuneError
from modelyard.core.locks import held
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.trial import Direction, Ended, Proposal, Trial, TrialState

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

_BUSY_S, _PROPOSING_S, _LOOK_S = 60.0, 600.0, 0.02
_OPENINGS, _OPENING_S = 6, 0.05
_LARGEST_STEP = 2**31 - 1
#: What a trial's user attributes hold of a proposal.
_KEPT = ("source", "budget", "parent", "notes")
#: Trials by number, each with what `Study.note` kept of it.
Noted = tuple[tuple[Trial, Mapping[str, Any]], ...]


class Study:
    """The trials of one study. To be used in one thread; several processes may have it open."""

    def __init__(
        self, url: str, name: str, *, directions: Sequence[Direction], dimensions: Sequence[Dimension],
        lock: Path,
    ) -> None:  # fmt: skip
        """Open the study of this name in the database, or make it.

        Raises:
            TuneError: The database cannot be used, or holds a study of this name with other directions.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name, self._lock = name, lock
        self._distributions = {each.name: distribution(each) for each in dimensions}
        self._storage = _storage(url)
        self._study = optuna.create_study(
            storage=self._storage, study_name=name, directions=list(directions), load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(), pruner=optuna.pruners.NopPruner(),  # never asked
        )  # fmt: skip
        found = [_direction(each.name) for each in self._study.directions]
        if found != list(directions):
            self.close()
            raise TuneError(
                f"{name}: the study there is to {' and '.join(found)}, this one to "
                f"{' and '.join(directions)}; give the study another name"
            )
        self._final: dict[int, Trial] = {}
        self._ids: dict[int, int] = {}  # number of a trial -> its id in the storage

    def close(self) -> None:
        """Close the storage."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one who proposes: what is read within stays true until the end."""
        with _file_lock(self._lock), self._database_lock():
            yield

    def trials(self) -> tuple[Trial, ...]:
        """All trials by number."""
        return tuple(self._read(frozen) for frozen in self._frozen())

    def noted(self) -> Noted:
        """All trials by number, from one reading."""
        return tuple((self._read(frozen), frozen.user_attrs) for frozen in self._frozen())

    def trial(self, number: int) -> Trial:
        """One trial."""
        return self._read(self._one(number))

    def add(self, proposal: Proposal, *, driver: str, assignments: Mapping[str, Any]) -> Trial:
        """Store a proposal as a running trial of this driver. To be called within `alone`."""
        import optuna

        attrs = {name: getattr(proposal, name) for name in _KEPT}
        template = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING, params=dict(proposal.point),
            distributions=self._distributions,
            user_attrs={**attrs, "driver": driver, "assignments": dict(assignments)},
        )  # fmt: skip
        storage = self._study._storage
        trial_id = storage.create_new_trial(self._study._study_id, template_trial=template)
        trial = self._read(storage.get_trial(trial_id))
        self._ids[trial.number] = trial_id
        return trial

    def attributes(self, number: int) -> Mapping[str, Any]:
        """What `note` kept of a trial, by name."""
        attributes: Mapping[str, Any] = self._one(number).user_attrs
        return attributes

    def note(self, number: int, **attributes: Any) -> None:
        """Keep JSON values with a trial, all in one transaction; later ones replace.

        Raises:
            optuna.exceptions.UpdateFinishedTrialError: The trial has ended, and its values stand.
        """
        import sqlalchemy
        from optuna.storages._rdb.models import TrialModel
        from optuna.storages._rdb.models import TrialUserAttributeModel as Stored

        trial_id = self._id(number)
        state = sqlalchemy.select(TrialModel.state).where(TrialModel.trial_id == trial_id).with_for_update()
        rows = [
            {"trial_id": trial_id, "key": name, "value_json": json.dumps(value)}
            for name, value in attributes.items()
        ]
        old = sqlalchemy.delete(Stored).where(Stored.trial_id == trial_id, Stored.key.in_(list(attributes)))
        with self._storage.engine.begin() as connection:
            connection.execute(old)  # from here on nobody else writes
            self._storage.check_trial_is_updatable(trial_id, connection.execute(state).scalar_one())
            connection.execute(sqlalchemy.insert(Stored), rows)

    def report(self, number: int, points: Mapping[int, float]) -> None:
        """Keep values of a running trial's curve by step, all in one transaction; later ones replace.

        Of other databases than SQLite, Optuna's table holds steps up to 2^31 - 1; larger ones are not kept.
        """
        import sqlalchemy
        from optuna.storages._rdb.models import TrialIntermediateValueModel as Stored

        if self._storage.engine.dialect.name != "sqlite":
            points = {step: value for step, value in points.items() if step <= _LARGEST_STEP}
        if not points:
            return
        trial_id, rows = self._id(number), []
        for step, value in points.items():
            kept, kind = Stored.intermediate_value_to_stored_repr(value)
            told = {"intermediate_value": kept, "intermediate_value_type": kind}
            rows.append({"trial_id": trial_id, "step": step, **told})
        old = sqlalchemy.delete(Stored).where(Stored.trial_id == trial_id, Stored.step.in_(list(points)))
        with self._storage.engine.begin() as connection:
            connection.execute(old)
            connection.execute(sqlalchemy.insert(Stored), rows)

    def tell(self, number: int, ended: Ended) -> bool:
        """Record the end of a trial; whether it was not recorded before. The first word stands."""
        import optuna

        frozen = self._one(number)
        if frozen.state.is_finished():
            return False
        self.note(number, **{"why": ended.why, "cause": ended.cause, **ended.attributes})
        for index, value in enumerate(ended.excess):  # as `set_constraint` of a trial does
            self._storage.set_trial_system_attr(frozen._trial_id, f"constraints:{index}", value)
        named = {"FAILED": "FAIL"}.get(ended.state.value, ended.state.value)
        self._study.tell(number, values=ended.values, state=optuna.trial.TrialState[named])
        return True

    def remember(self, name: str, value: Any) -> None:
        """Keep a JSON value with the study."""
        self._study.set_user_attr(name, value)

    def remembered(self, name: str) -> Any:
        """What `remember` kept under this name; None where nothing is."""
        return self._study.user_attrs.get(name)

    def identify(self, own: Mapping[str, Any]) -> list[str]:
        """Keep what the study is of when it begins; later, the names of what is another now."""
        known = self.remembered("identity")
        if known is None:
            self.remember("identity", own)
            known = own
        return [name for name in own if digest_json(own[name]) != digest_json(known.get(name))]

    def beat(self, driver: str) -> None:
        """Let it be known that a driver is at work."""
        self.remember(f"driver:{driver}", self._now())

    def silent_s(self, driver: str) -> float | None:
        """For how long a driver was not heard of, by the database's clock; None: it never was."""
        heard = self.remembered(f"driver:{driver}")
        return None if heard is None else max(0.0, self._now() - float(heard))

    def _now(self) -> float:
        """Seconds since 1970, by the clock that all who share the database have in common."""
        if self._storage.engine.dialect.name != "postgresql":
            return time.time()
        import sqlalchemy

        with self._storage.engine.connect() as connection:
            asked = connection.execute(sqlalchemy.text("SELECT extract(epoch FROM clock_timestamp())"))
            return float(asked.scalar_one())

    def times(self, number: int) -> tuple[str, str]:
        """When a trial was proposed and when it ended, ISO 8601; empty where it has not."""
        frozen = self._one(number)
        return tuple(
            at.astimezone().isoformat() if at is not None else ""
            for at in (frozen.datetime_start, frozen.datetime_complete)
        )  # type: ignore[return-value]

    def _one(self, number: int) -> FrozenTrial:
        return self._study._storage.get_trial(self._id(number))

    def _id(self, number: int) -> int:
        if number not in self._ids:
            self._ids |= {frozen.number: frozen._trial_id for frozen in self._frozen()}
        return self._ids[number]

    def _frozen(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _read(self, frozen: FrozenTrial) -> Trial:
        known = self._final.get(frozen.number)
        if known is not None:
            return known
        trial = _trial(frozen)
        if trial.state.final:
            self._final[trial.number] = trial
        return trial

    @contextmanager
    def _database_lock(self) -> Iterator[None]:
        """On a database that several machines share, a lock there; SQLite is on one machine."""
        if self._storage.engine.dialect.name != "postgresql":
            yield
            return
        from sqlalchemy import text

        with self._storage.engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": self.name})
            yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a storage holds of a study, whoever made it."""

    directions: tuple[Direction, ...]
    # What `remember` kept, by name; empty of a study that is not ours.
    remembered: Mapping[str, Any]
    # Each trial with the values that its command got; of a study that is not ours, its parameters.
    trials: tuple[tuple[Trial, Mapping[str, Any]], ...]
    # What was noted of each trial, by name.
    attributes: tuple[Mapping[str, Any], ...] = ()


def read_stored(url: str, name: str) -> Stored:
    """Read a study without making one.

    Raises:
        TuneError: The database cannot be used, or has no study of this name.
    """
    import optuna
    import sqlalchemy

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else ""
    if path and not Path(path).exists():  # opening it would make it
        raise TuneError(f"{path}: there is no database of a study here; name one that is there")
    storage = _storage(url)
    try:
        study = optuna.load_study(study_name=name, storage=storage)
        frozen = study.get_trials(deepcopy=False)
        return Stored(
            directions=tuple(_direction(each.name) for each in study.directions),
            remembered=dict(study.user_attrs),
            trials=tuple((_trial(each), each.user_attrs.get("assignments", each.params)) for each in frozen),
            attributes=tuple(each.user_attrs for each in frozen),
        )
    except KeyError as error:
        names = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise TuneError(f"{_shown(url)}: there is no study {name!r} here; there are: {names}") from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise TuneError(f"{_shown(url)}: the study {name!r} cannot be read ({error})") from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _direction(word: str) -> Direction:
    return "maximize" if word == "MAXIMIZE" else "minimize"


def distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.kind == "choice":
        return CategoricalDistribution(dimension.choices)
    if dimension.kind == "int":
        low, high, step = int(dimension.low), int(dimension.high), int(dimension.step or 1)
        return IntDistribution(low, high, step=step, log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def _storage(url: str) -> RDBStorage:
    """Open the database. Those who open a new one at once get into each other's way, and try again."""
    from sqlalchemy.exc import SQLAlchemyError

    for tried in range(1, _OPENINGS + 1):
        try:
            return _opened(url)
        except (ImportError, ValueError, SQLAlchemyError) as error:
            if tried == _OPENINGS or not isinstance(error, SQLAlchemyError):
                raise TuneError(
                    f"{_shown(url)}: the database of the study cannot be opened ({error}); "
                    "start it, or mend the URL"
                ) from error
            time.sleep(_OPENING_S * tried)
    raise AssertionError


def _opened(url: str) -> RDBStorage:
    from optuna.storages import RDBStorage

    scheme, rest = url.split(":", 1) if ":" in url else (url, "")
    if scheme == "postgresql":  # the driver that the extra `postgres` installs
        url = f"postgresql+psycopg:{rest}"
    sqlite = url.startswith("sqlite")
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _BUSY_S}} if sqlite else {})
    if sqlite:
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    return storage


def _shown(url: str) -> str:
    """The URL without its password."""
    import sqlalchemy

    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except (ValueError, sqlalchemy.exc.ArgumentError):
        return "the storage's URL"


def _trial(frozen: FrozenTrial) -> Trial:
    kept: dict[str, Any] = {name: frozen.user_attrs[name] for name in _KEPT if name in frozen.user_attrs}
    state = {"FAIL": "FAILED", "WAITING": "RUNNING"}.get(frozen.state.name, frozen.state.name)
    complete = state == TrialState.COMPLETE.value
    return Trial(
        **{"source": "optuna", **kept},
        number=frozen.number,
        point=frozen.params,
        state=TrialState(state),
        values=tuple(frozen.values) if complete else None,
        curve={step: v for step, v in sorted(frozen.intermediate_values.items()) if math.isfinite(v)},
        excess=tuple(frozen.constraints.values()),
        why=frozen.user_attrs.get("why", ""),
        cause=frozen.user_attrs.get("cause", ""),
    )


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Wait for the lock of a file."""
    begun = time.monotonic()
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(path))
                break
            except BlockingIOError as error:
                if time.monotonic() - begun > _PROPOSING_S:
                    raise TuneError(f"{path}: another process holds this lock; end it") from error
                time.sleep(_LOOK_S)
        yield
