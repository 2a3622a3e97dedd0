"""A few seeded kills of a process that promotes, and promoters who race; the long campaign is `make soak`."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from modelyard.core.errors import RegistryError
from modelyard.core.failpoints import REGISTRY_NAMES, VARIABLE
from modelyard.core.signing import OWN_KEY, open_signer
from modelyard.registry.audit import audit
from modelyard.registry.promotion import Promotion, promote
from modelyard.registry.store import open_registry
from modelyard.registry.versions import Candidate, register
from modelyard.runs.yard import open_yard
from modelyard.testing.certificates import MadeUp, make_certificate, model_digest
from modelyard.testing.kills import Kill, random_kills
from modelyard.testing.promotion_campaign import drive, fallen, kept, own_schema, prepare, run_trial

pytestmark = [pytest.mark.kill, pytest.mark.slow]

RIVALS = ("b", "c", "d")
#: Processes that begin with everything imported.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["modelyard.testing.promotion_campaign"])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every trial begins with."""
    folder = tmp_path_factory.mktemp("promotions") / "template"
    prepare(folder)
    return folder


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> str | None:
    """None for SQLite, a PostgreSQL database otherwise."""
    return request.getfixturevalue("postgres_url") if request.param == "postgresql" else None


@pytest.fixture
def url(server: str | None, tmp_path: Path) -> Iterator[str]:
    """The address of an empty registry that several yards may share."""
    if server is None:
        yield f"sqlite:///{tmp_path / 'shared.db'}"
        return
    with own_schema(server) as address:
        yield address


@pytest.mark.parametrize("kill", random_kills(1, within_s=4.0, seed=20261126), ids=str)
def test_random_instants_are_survived(kill: Kill, tmp_path: Path, template: Path, postgres_url: str) -> None:
    _, broken = run_trial(tmp_path / "trial", kill, 1, template=template, server=postgres_url)
    assert not broken


@pytest.mark.parametrize("place", REGISTRY_NAMES)
def test_a_process_that_dies_anywhere_is_survived_on_postgresql(
    place: str, tmp_path: Path, template: Path, postgres_url: str
) -> None:
    folder = tmp_path / "trial"
    shutil.copytree(template, folder)
    with own_schema(postgres_url) as url:
        process = PROCESSES.Process(target=_drive, args=(folder, url, f"{place}:2"))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the failpoint was never passed"
        assert not any(fallen(folder, url).values())
        drive(folder, url)
        assert not any(kept(folder, url).values())


@pytest.mark.parametrize("yards", ["one yard", "each their own"])
def test_of_promoters_who_race_for_one_alias_one_wins(url: str, yards: str, tmp_path: Path) -> None:
    first = tmp_path / "yard-a"
    _prepare_race(first, url)
    own = {name: tmp_path / f"yard-{name}" if yards == "each their own" else first for name in RIVALS}
    for name in RIVALS:
        if own[name] != first:
            _prepare_yard(own[name], first)
    barrier, said = PROCESSES.Barrier(len(RIVALS)), tmp_path / "said"
    said.mkdir()
    racers = [PROCESSES.Process(target=_race, args=(own[n], url, n, barrier, said / n)) for n in RIVALS]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    told = {name: (said / name).read_text() for name in RIVALS}
    (winner,) = [name for name, text in told.items() if text == "moved"]
    for name in set(RIVALS) - {winner}:
        assert told[name].startswith("stage: "), told
        assert f"{winner}@1" in told[name], told
    with open_registry(url) as registry:
        assert registry.aliases()["stage"].name == winner
        assert [move.name for move in registry.history("stage")] == ["a", winner]
        for name in RIVALS:
            assert audit(open_yard(own[name], create=False), registry).faults == ()


def _drive(folder: Path, url: str, failpoint: str) -> None:
    os.environ[VARIABLE] = failpoint
    drive(folder, url)


def _prepare_race(root: Path, url: str) -> None:
    """A yard whose stage serves a, with rivals that are all better than a."""
    yard = open_yard(root, create=True)
    signer = open_signer(yard.keys_dir / OWN_KEY, create=True)
    pairs = [("a", "x"), *((name, "a") for name in RIVALS)]
    for candidate, baseline in pairs:
        folder = root / "certificates" / candidate
        make_certificate(folder, MadeUp(candidate=candidate, baseline=baseline), signer)
    with open_registry(url) as registry:
        for name, _ in pairs:
            register(yard, registry, Candidate(name=name, digest=model_digest(name)))
        promote(yard, registry, _wanted(root, "a"))


def _prepare_yard(root: Path, model: Path) -> None:
    """Another yard that believes the same keys, with the same certificates."""
    open_yard(root, create=True)
    for name in ("keys", "certificates"):
        shutil.copytree(model / name, root / name)


def _wanted(root: Path, name: str) -> Promotion:
    report = root / "certificates" / name / "paired_eval_report.json"
    return Promotion(version=name, alias="stage", evidence=report, actor=f"promoter of {name}")


def _race(root: Path, url: str, name: str, barrier: Barrier, said: Path) -> None:
    yard = open_yard(root, create=False)
    with open_registry(url) as registry:
        barrier.wait()
        try:
            said.write_text(promote(yard, registry, _wanted(root, name)).result)
        except RegistryError as error:
            said.write_text(str(error))
    os._exit(0)
