"""From a declaration to a search: what cannot work is told before anything is made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from modelyard.core.errors import DocumentError, PluginError, TuneError
from modelyard.tuning.document import read_tune
from modelyard.tuning.preparing import preflight, prepare

PLAIN = {
    "name": "one", "command": "{python} train.py {params}", "metric": "loss", "algorithm": "random",
    "space": {"lr": {"low": 1e-5, "high": 0.1, "default": 1e-3}},
}  # fmt: skip


def declared(folder: Path, **changes):
    path = folder / "tune.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changes}))
    return read_tune(path)


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture
def check(tmp_path, open_local):
    """Prepares and checks; the faults. Nothing may be made meanwhile."""

    def run(environment=None, **changes):
        declaration = declared(tmp_path, **changes)
        before = everything(tmp_path)
        search = prepare(declaration, tmp_path / "runs")
        environment = dict(os.environ) if environment is None else environment
        try:
            preflight(search, open_local(environment=environment), environment)
        except DocumentError as error:
            return [str(fault) for fault in error.faults]
        finally:
            assert everything(tmp_path) == before
        return []

    return run


@pytest.mark.parametrize("algorithm", ["random", "tpe", "cmaes"])
def test_a_search_is_made_of_what_is_declared(tmp_path, algorithm):
    search = prepare(
        declared(tmp_path, algorithm=algorithm, start=[{"lr": 0.01}], trials=7), tmp_path / "runs"
    )
    assert (search.name, search.run_dir, search.limits.trials) == ("one", tmp_path / "runs" / "one", 7)
    assert search.starts == ({"lr": 0.01},)
    proposal = search.searcher.propose([], 0)
    assert search.space.repair(proposal.point) == proposal.point


def test_what_makes_another_study_changes_its_identity_and_nothing_else_does(tmp_path):
    def identity(**changes):
        return prepare(declared(tmp_path, **changes), tmp_path / "runs").identity

    first = identity()
    assert identity() == first
    for same in ({"trials": 9}, {"parallel": 3}, {"target": 0.1}, {"budget": "1h"}, {"retries": 4}):
        assert identity(**same) == first, same
    others = [
        {"command": "{python} other.py {params}"}, {"algorithm": "tpe"}, {"seed": 3}, {"env": {"A": "1"}},
        {"cwd": "sub"}, {"config": "c.yaml"}, {"shell": True},
    ]  # fmt: skip
    for other in others:
        assert identity(**other) != first, other


def test_what_an_algorithm_cannot_do_is_told(tmp_path):
    for changes, error, words in (
        ({"algorithm": "none-such"}, PluginError, "none-such"),
        ({"algorithm": "asha"}, TuneError, "no rungs are given"),
        ({"algorithm": "cmaes", "metric": ["loss", "error"]}, TuneError, "2 objectives"),
        ({"options": {"sampler": "tpe"}}, DocumentError, "sampler"),
        (
            {"algorithm": "asha", "rungs": {"low": 1, "high": 9}, "options": {"sampler": "x"}},
            DocumentError,
            "tpe",
        ),
    ):
        with pytest.raises(error, match=words):
            prepare(declared(tmp_path, **changes), tmp_path / "runs")


def test_what_can_run_passes(check):
    assert check() == []
    assert (
        check(algorithm="asha", rungs={"low": 1, "high": 9}, command="{python} x.py {params} {budget}") == []
    )


def test_what_the_machine_lacks_is_told(check, monkeypatch):
    (fault,) = check(command="no-such-program {params}")
    assert "no-such-program" in fault
    (fault,) = check(inputs=["data.csv"])
    assert "data.csv" in fault
    (fault,) = check(secrets=["NO_SUCH_TOKEN"])
    assert "NO_SUCH_TOKEN" in fault
    (fault,) = check(resources={"cpus": 4096})
    assert "4096" in fault
    assert any("cwd" in fault and "is not a folder" in fault for fault in check(cwd="nowhere"))
    assert len(check(inputs=["data.csv"], secrets=["NO_SUCH_TOKEN"], command="no-such-program {params}")) == 3
    monkeypatch.setenv("NO_SUCH_TOKEN", "x")
    assert check(secrets=["NO_SUCH_TOKEN"]) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"), ("lr: [1, 2", "expected"), ("- a", "holds no mapping"), ("lr: {a: 1}", ""),
        ("optim: 3", "optim.lr: 'lr' is in something that holds no such place"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_take_the_values_is_told(check, tmp_path, content, reason):
    if content is not None:
        (tmp_path / "base.yaml").write_text(content)
    name = "lr" if not reason else "optim.lr"
    found = check(config="base.yaml", command="{python} {config}", space={name: {"low": 0.1, "high": 1.0}})
    assert (found == []) if not reason else (reason in found[0] and "cannot be merged" in found[0])
