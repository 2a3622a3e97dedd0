"""The kill campaign over a registry: `python -m modelyard.testing.promotion_campaign --kills 100`.

Each trial registers three models and moves both aliases seven times, a rollback and approvals included. It is
killed once, looked at as it lies, resumed, and held against what was promised: at no instant an alias without
evidence, every move made exactly once, the journal sound and in agreement with the database. With
`--registry postgresql://...` every trial has a schema of its own there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from modelyard.core.failpoints import REGISTRY_NAMES
from modelyard.core.signing import OWN_KEY, TRUSTED, open_signer
from modelyard.registry.audit import audit
from modelyard.registry.evidence import REPORT
from modelyard.registry.ledger import ABANDONED, INTENT, MOVED, reconcile, registry_url
from modelyard.registry.promotion import Promotion, promote
from modelyard.registry.records import PROD, STAGE
from modelyard.registry.rollback import Rollback, rollback
from modelyard.registry.store import Registry, open_registry
from modelyard.registry.versions import Candidate, register
from modelyard.runs.yard import Yard, open_yard
from modelyard.testing.campaign import Broken, broken_promises, run_campaign
from modelyard.testing.certificates import MadeUp, make_certificate, model_digest
from modelyard.testing.kills import Kill, Survival, Trial, failpoint_kills, random_kills, survive
from modelyard.verify.journal import Verdict, verify_journal

_JOURNAL_NAMES = ("journal.before_write", "journal.before_sync", "journal.after_sync")
_NEVER_S = 1e9
_YARD, _APPROVER = ".modelyard", "approver.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One move of the scenario."""

    alias: str
    generation: int
    name: str
    # What its certificate compares with; empty for a rollback.
    over: str


SCENARIO = (
    Step(alias=STAGE, generation=1, name="a", over="x"),
    Step(alias=PROD, generation=1, name="a", over="x"),
    Step(alias=STAGE, generation=2, name="b", over="a"),
    Step(alias=PROD, generation=2, name="b", over="a"),
    Step(alias=PROD, generation=3, name="a", over=""),
    Step(alias=STAGE, generation=3, name="c", over="b"),
    Step(alias=PROD, generation=4, name="c", over="a"),
)


def prepare(folder: Path) -> None:
    """A yard with keys and certificates, to be copied for every trial."""
    yard = open_yard(folder / _YARD, create=True)
    own = open_signer(yard.keys_dir / OWN_KEY, create=True)
    approver = open_signer(folder / _APPROVER, create=True)
    (yard.keys_dir / TRUSTED / "approver.pem").write_text(approver.public_pem)
    for step in SCENARIO:
        if step.over:
            made_up = MadeUp(candidate=step.name, baseline=step.over)
            make_certificate(_certificate(folder, step).parent, made_up, own)


def drive(folder: Path, url: str | None) -> None:
    """Carry out the scenario, or what is left of it."""
    with opened(folder, url) as (yard, registry):
        for name in sorted({step.name for step in SCENARIO}):
            register(yard, registry, Candidate(name=name, digest=model_digest(name)))
        for step in SCENARIO:
            if len(registry.history(step.alias)) < step.generation:
                _take(yard, registry, folder, step)


def run_trial(
    folder: Path, kill: Kill, seed: int, *, template: Path, server: str | None = None
) -> tuple[Survival, list[Broken]]:
    """One kill over one scenario; what happened, and the promises broken.

    Args:
        folder: Where it is played; made here.
        kill: The one kill.
        seed: Chooses the victim.
        template: What `prepare` made.
        server: A PostgreSQL database; without it the yard's own SQLite is used.
    """
    shutil.copytree(template, folder)
    with own_schema(server) if server else nullcontext(None) as url:
        argv = [sys.executable, "-m", "modelyard.testing.promotion_campaign", "--drive", str(folder)]
        trial = Trial(
            argv=[*argv, *(["--registry", url] if url else [])],
            cwd=folder,
            environment=dict(os.environ),
            json_files=[folder / _YARD / "journal" / "head.json"],
        )
        killed = survive(replace(trial, most_runs=1), kill, seed=seed)
        promises = dict(fallen(folder, url))
        survival = survive(trial, Kill(after_s=_NEVER_S), seed=seed)
        promises |= kept(folder, url)
    survival.kill, survival.killed = killed.kill, killed.killed
    survival.statuses[:0] = killed.statuses
    survival.broken_json[:0] = killed.broken_json
    promises |= {
        "done": "" if survival.done else f"statuses {survival.statuses}: {survival.stderr[-500:]}",
        "nothing alive": "" if not survival.left_alive else f"pids {survival.left_alive}",
        "valid at every instant": "; ".join(survival.broken_json[:3]),
    }
    return survival, broken_promises(kill, promises)


@contextmanager
def own_schema(server: str) -> Iterator[str]:
    """The address of an empty schema in a PostgreSQL database, which is dropped at the end."""
    import sqlalchemy

    name = f"registry_{uuid.uuid4().hex}"
    engine = sqlalchemy.create_engine(
        server.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=sqlalchemy.NullPool
    )
    with engine.begin() as connection:
        connection.execute(sqlalchemy.schema.CreateSchema(name))
    try:
        yield f"{server}{'&' if '?' in server else '?'}options=-csearch_path%3D{name}"
    finally:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.schema.DropSchema(name, cascade=True))
        engine.dispose()


def _take(yard: Yard, registry: Registry, folder: Path, step: Step) -> None:
    if not step.over:
        rollback(yard, registry, Rollback(alias=step.alias, actor="driver", reason="a rehearsed incident"))
        return
    signer = open_signer(folder / _APPROVER, create=False) if step.alias == PROD else None
    wanted = Promotion(
        version=step.name, alias=step.alias, evidence=_certificate(folder, step), actor="driver",
        signer=signer,
    )  # fmt: skip
    promote(yard, registry, wanted)


def _certificate(folder: Path, step: Step) -> Path:
    return folder / "certificates" / f"{step.name}-{step.over}" / REPORT


@contextmanager
def opened(folder: Path, url: str | None) -> Iterator[tuple[Yard, Registry]]:
    """The yard of a prepared folder, and its registry, which is closed at the end."""
    yard = open_yard(folder / _YARD, create=False)
    with open_registry(registry_url(yard, url)) as registry:
        yield yard, registry


def fallen(folder: Path, url: str | None) -> Mapping[str, str]:
    """What is promised just after a kill, before anybody mended anything, and what is said against it."""
    with opened(folder, url) as (yard, registry):
        found = verify_journal(yard.journal.folder)
        faults = audit(yard, registry).faults
    return {
        "sound journal after the kill": "; ".join(_not_mended(found)[:3]),
        "no alias without evidence after the kill": "; ".join(faults[:3]),
    }


def _not_mended(found: Verdict) -> list[str]:
    """Faults that the next append does not mend: it drops a torn line, and writes the head where none is."""
    mended = ("has no end", *(("head.json is missing",) if found.entries <= 1 else ()))
    return [fault for fault in found.faults if not any(each in fault for each in mended)]


def kept(folder: Path, url: str | None) -> Mapping[str, str]:
    """What is promised at the end, and what is said against it."""
    with opened(folder, url) as (yard, registry):
        found = audit(yard, registry)
        history = [(m.alias, m.generation, m.name) for m in registry.history()]
        agreed = reconcile(yard, registry).nothing
        approvals = len(registry.approvals())
        ends = Counter(
            entry.data["move"] if entry.kind != INTENT else entry.data["move"]["id"]
            for entry in yard.journal.read()
            if entry.kind in (INTENT, MOVED, ABANDONED)
        )
        journal = verify_journal(yard.journal.folder).faults
    expected = sorted((step.alias, step.generation, step.name) for step in SCENARIO)
    asked = sum(step.alias == PROD and bool(step.over) for step in SCENARIO)
    odd = [move for move, count in ends.items() if count != 2]  # its intent and one end
    return {
        "sound journal": "; ".join(journal[:3]),
        "no alias without evidence": "; ".join(found.faults[:3]),
        "journal and database agree": "" if agreed and not found.open else f"open: {found.open}",
        "every move once": "" if sorted(history) == expected else f"{history}",
        "every move ended once": "" if not odd else f"{odd}",
        "every approval once": "" if approvals == asked else f"{approvals} where {asked} were given",
    }


def _instants(count: int, *, template: Path, seed: int) -> list[Kill]:
    """Kills at random instants of the scenario, the time before it begins left out."""
    with tempfile.TemporaryDirectory(prefix="modelyard-promotions-") as root:
        folder = Path(root) / "alone"
        shutil.copytree(template, folder)
        begun = time.monotonic()
        survive(
            Trial(argv=[sys.executable, "-c", f"import {__name__}"], cwd=folder, environment=os.environ),
            Kill(after_s=_NEVER_S),
        )
        loaded_s = time.monotonic() - begun
        begun = time.monotonic()
        drive(folder, None)
        within_s = time.monotonic() - begun
    return [
        Kill(after_s=loaded_s + kill.after_s) for kill in random_kills(count, within_s=within_s, seed=seed)
    ]


def campaign(kills: int, *, seed: int, server: str | None) -> int:
    """Visit every failpoint and as many random instants as told; the exit status."""
    with tempfile.TemporaryDirectory(prefix="modelyard-promotions-") as root:
        template = Path(root) / "template"
        prepare(template)
        points: Sequence[str] = (*REGISTRY_NAMES, *_JOURNAL_NAMES)
        plan = [
            *failpoint_kills(only=points, later=(1, 3)),
            *_instants(kills, template=template, seed=seed),
        ]
        return run_campaign(plan, partial(run_trial, template=template, server=server), seed=seed)


def main() -> int:
    """Run the campaign and print what was found; status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100, help="kills at random instants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--registry", help="a PostgreSQL database; without it SQLite")
    parser.add_argument("--drive", type=Path, help="carry out the scenario in a prepared folder, once")
    chosen = parser.parse_args()
    if chosen.drive is not None:
        drive(chosen.drive, chosen.registry)
        return 0
    return campaign(chosen.kills, seed=chosen.seed, server=chosen.registry)


if __name__ == "__main__":
    sys.exit(main())
