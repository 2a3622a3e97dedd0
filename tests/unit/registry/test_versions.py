"""Registering: numbers, digests, and the first word on who trained a model."""

from __future__ import annotations

import pytest

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.digests import digest_path
from modelyard.core.errors import RegistryError
from modelyard.registry.versions import Candidate, find_version, register, trainers_of
from modelyard.testing.certificates import model_digest


def test_a_model_is_one_version_of_its_name_however_often_it_is_registered(yard, registry):
    told = {
        "name": "a",
        "digest": model_digest("a2"),
        "trained_by": "k",
        "run_id": "run-1",
        "entry": {"n": 1},
    }
    first = register(yard, registry, Candidate(**told))
    assert (first.label, first.run_id, first.entry, first.yard) == ("a@2", "run-1", {"n": 1}, yard.id)
    assert register(yard, registry, Candidate(**{**told, "run_id": "run-2"})) == first
    assert sum(entry.kind == "registry.registered" for entry in yard.journal.read()) == 4


@pytest.mark.parametrize(("before", "after"), [("k", "another"), ("", "k")])
def test_who_trained_it_cannot_be_changed_afterwards(yard, registry, before, after):
    told = {"name": "d", "digest": model_digest("d")}
    register(yard, registry, Candidate(**told, trained_by=before))
    with pytest.raises(RegistryError, match=f"not by {after}"):
        register(yard, registry, Candidate(**told, trained_by=after))
    assert register(yard, registry, Candidate(**told)).trained_by == before


def test_trainers_are_known_under_all_names(yard, registry):
    for name, trainer in (("d", "k1"), ("e", "k2"), ("f", "")):
        register(yard, registry, Candidate(name=name, digest=model_digest("d"), trained_by=trainer))
    assert trainers_of(registry.versions(), model_digest("d")) == {"k1", "k2"}
    assert trainers_of(registry.versions(), model_digest("a")) == frozenset()


@pytest.mark.parametrize(
    "changes",
    [{"name": ""}, {"name": "a@1"}, {"digest": "sha256:1"}, {"parent_digest": "x"}, {"digest": "1" * 64}],
)
def test_what_cannot_be_registered(yard, registry, changes):
    with pytest.raises(RegistryError):
        register(yard, registry, Candidate(**{"name": "d", "digest": model_digest("d"), **changes}))
    assert len(registry.versions()) == 3


def test_whether_the_model_is_kept_is_noted(yard, registry, tmp_path):
    (tmp_path / "weights").write_text("1")
    digest = digest_path(tmp_path / "weights")
    ArtifactStore(yard.artifacts_dir).put(tmp_path / "weights", kind="checkpoint")
    assert register(yard, registry, Candidate(name="w", digest=digest)).stored
    assert not registry.version("a").stored


def test_a_version_is_found_by_number_by_digest_or_as_the_newest(yard, registry):
    register(yard, registry, Candidate(name="a", digest=model_digest("a2")))
    assert find_version(registry, "a@1").version == 1
    assert find_version(registry, "a").version == 2
    assert find_version(registry, "a", digest=model_digest("a")).version == 1
    assert find_version(registry, "a", digest="sha256:other").version == 2
    with pytest.raises(RegistryError, match="a@9: is not registered"):
        find_version(registry, "a@9")
