"""From which weights a training begins: what each policy takes, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.lifecycle.governed.world import REQUEST, World

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.digests import digest_path
from modelyard.core.errors import GovernanceError
from modelyard.core.files import read_json
from modelyard.lifecycle.governed.start_policy import Release, StartFacts, training_start


class Promoted:
    """A registry that has promoted these releases, the newest first."""

    def __init__(self, *releases: Release) -> None:
        self.releases = releases
        self.asked: list[Sequence[str]] = []

    def promoted(self, names: Sequence[str]) -> Sequence[Release]:
        self.asked.append(names)
        return self.releases

    def find(self, release: str) -> Release | None:
        return next((each for each in self.releases if release in (each.id, each.alias)), None)


def stored(world: World, text: str) -> str:
    """A checkpoint in the content store, by its digest."""
    folder = world.folder / text
    folder.mkdir()
    (folder / "weights.json").write_text(text)
    return ArtifactStore(world.yard().artifacts_dir).put(folder, kind="checkpoint").digest


def facts(
    world: World, releases: Promoted, policy: str, *, iteration: int = 1, release: str = ""
) -> StartFacts:
    governance, yard = world.governance(), world.yard()
    return StartFacts(
        request=replace(REQUEST, start_policy=policy, release_id=release or None),
        candidate=governance.candidates["small"],
        lineage=("small", "tiny"),
        folder=world.folder,
        iteration=iteration,
        journal=yard.journal,
        store=ArtifactStore(yard.artifacts_dir),
        releases=releases,
    )


def release(weights: str | None, *, version: int = 1, fault: str = "") -> Release:
    return Release(name="tiny", version=version, weights=weights, alias="prod", fault=fault)


def test_bootstrap_takes_the_candidates_base(world: World) -> None:
    start = training_start(facts(world, Promoted(), "bootstrap"))
    assert (start.base, start.digest) == (str(world.folder / "base"), digest_path(world.folder / "base"))


def test_a_base_that_is_no_file_is_a_name(world: World) -> None:
    world.declare(candidates=[{"name": "small", "base": "vendor/model"}])
    start = training_start(facts(world, Promoted(), "bootstrap"))
    assert (start.base, start.digest) == ("vendor/model", None)


def test_the_newest_promoted_of_the_lineage_is_gone_on_from(world: World) -> None:
    older, newer = stored(world, "older"), stored(world, "newer")
    registry = Promoted(release(newer, version=2), release(older))
    start = training_start(facts(world, registry, "continue_last_promoted"))
    assert (start.chosen, start.digest, start.rejected) == ("tiny@2", newer, ())
    assert (Path(start.base) / "weights.json").read_text() == "newer"
    assert registry.asked == [("small", "tiny")]


def test_a_release_whose_weights_are_gone_is_passed_over_on_record(world: World) -> None:
    older = stored(world, "older")
    registry = Promoted(release(None, version=3), release("sha256:" + "0" * 64, version=2), release(older))
    start = training_start(facts(world, registry, "continue_last_promoted"))
    assert (start.chosen, [each.what for each in start.rejected]) == ("tiny@1", ["tiny@3", "tiny@2"])


def test_a_release_whose_signature_fails_is_an_error_and_not_passed_over(world: World) -> None:
    older, newer = stored(world, "older"), stored(world, "newer")
    registry = Promoted(release(newer, version=2, fault="its signature is not right"), release(older))
    with pytest.raises(GovernanceError, match=r"tiny@2.*cannot be believed: its signature is not right"):
        training_start(facts(world, registry, "continue_last_promoted"))


def test_nothing_promoted_is_an_error(world: World) -> None:
    with pytest.raises(GovernanceError, match="nothing of it was promoted"):
        training_start(facts(world, Promoted(), "continue_last_promoted"))


def test_a_release_by_its_name_or_its_alias(world: World) -> None:
    weights = stored(world, "older")
    for named in ("tiny@1", "prod"):
        start = training_start(facts(world, Promoted(release(weights)), "from_release", release=named))
        assert (start.chosen, start.digest) == ("tiny@1", weights)


@pytest.mark.parametrize(
    ("known", "told"),
    [
        (None, "has no release tiny@1"),
        (release(None), "not files of this yard"),
        (release("sha256:" + "0" * 64), "is not in"),
        (release(None, fault="it is forged"), "it is forged"),
    ],
)
def test_a_release_that_cannot_be_used_is_an_error(world: World, known: Release | None, told: str) -> None:
    registry = Promoted(*([known] if known else []))
    with pytest.raises(GovernanceError, match=told):
        training_start(facts(world, registry, "from_release", release="tiny@1"))


def test_a_changed_checkpoint_is_not_gone_on_from(world: World) -> None:
    weights = stored(world, "older")
    place = ArtifactStore(world.yard().artifacts_dir).path(weights)
    (place / "weights.json").write_text("poisoned")
    with pytest.raises(GovernanceError, match="changed on disk"):
        training_start(facts(world, Promoted(release(weights)), "from_release", release="tiny@1"))


def test_resuming_takes_the_last_whole_checkpoint_of_the_run(world: World) -> None:
    world.run()
    start = training_start(facts(world, Promoted(), "resume_run", iteration=2))
    assert start.chosen.startswith("iteration 1, sha256:")
    assert (Path(start.base) / "weights.json").exists()
    (Path(start.base) / "weights.json").write_text("poisoned")
    with pytest.raises(GovernanceError, match="has no checkpoint to resume from"):
        training_start(facts(world, Promoted(), "resume_run", iteration=2))


def test_weights_that_have_changed_since_the_plan_are_not_trained_on(world: World) -> None:
    world.run(live=False)
    (world.folder / "base" / "weights.json").write_text('{"other": 1}')
    with pytest.raises(GovernanceError, match="when the run was planned"):
        world.run(live=True)
    assert world.trained() == 0


def test_data_that_has_changed_since_a_dry_run_is_pinned_anew(world: World) -> None:
    world.run(live=False)
    (world.folder / "data.jsonl").write_text("{}")
    manifest = read_json(Path(str(world.run(live=True)["manifest"])))
    assert manifest["digests"]["data"] == {"data.jsonl": digest_path(world.folder / "data.jsonl")}
