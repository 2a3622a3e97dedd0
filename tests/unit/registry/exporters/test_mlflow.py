"""A registry in MLflow: its client reads what was written to a database and, where one is given, a server."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from tests.mlflow_server import KINDS, MARKS, free_port, mlflow_uri

from modelyard.cli.main import cli
from modelyard.core.errors import RegistryError
from modelyard.core.locks import held
from modelyard.registry.exporters.mlflow import MlflowExporter, allowed_name, description, version_tags
from modelyard.registry.records import Move
from modelyard.registry.rollback import Rollback, rollback
from modelyard.registry.versions import Candidate, register
from modelyard.testing.certificates import model_digest

pytestmark = MARKS


@pytest.fixture(scope="module", params=KINDS)
def place(request, tmp_path_factory):
    """Where MLflow keeps models: a database, or a real server before one."""
    with mlflow_uri(request.param, tmp_path_factory.mktemp("mlflow")) as found:
        yield found


@pytest.fixture
def client(place):
    """MLflow's client, at the end of a test without the models that it made."""
    from mlflow import MlflowClient

    made = MlflowClient(tracking_uri=place, registry_uri=place)
    yield made
    for model in made.search_registered_models():
        made.delete_registered_model(model.name)


@pytest.fixture
def export(place, client, registry):
    return lambda name=None: MlflowExporter(tracking_uri=place).export(registry, name)


def everything(client):
    """All that MLflow has, as it can be compared; its own times included."""
    models = list(client.search_registered_models())
    found = [each for model in models for each in client.search_model_versions(f"name = '{model.name}'")]
    return [
        *((m.name, m.aliases, m.tags, m.description, m.last_updated_timestamp) for m in models),
        *((v.name, v.version, v.tags, v.description, v.last_updated_timestamp) for v in found),
    ]


def aliases_of(client, name):
    """What a model's aliases serve; a database gives integers where a server gives texts."""
    return {a: str(number) for a, number in client.get_registered_model(name).aliases.items()}


def tags_of(client, name, version="1"):
    tags = client.get_model_version(name, version).tags
    return {key.removeprefix("modelyard."): value for key, value in tags.items()}


def test_versions_are_there_with_what_is_known_of_them(yard, registry, export, client):
    register(yard, registry, Candidate(
        name="a", digest=model_digest("a2"), run_id="r7", trained_by="ann", parent_digest=model_digest("a"),
    ))  # fmt: skip
    done = export()
    assert (done.added, done.updated, done.known) == (("a@1", "a@2", "b@1", "c@1"), (), ())
    assert done.aliases == {}
    assert sorted(model.name for model in client.search_registered_models()) == ["a", "b", "c"]
    told = tags_of(client, "a", "2")
    assert told["digest"] == model_digest("a2") and told["parent_digest"] == model_digest("a")
    assert (told["label"], told["run_id"], told["trained_by"]) == ("a@2", "r7", "ann")
    assert told["registered_at"] == registry.version("a", 2).created_at
    assert "run_id" not in tags_of(client, "a") and "trained_by" not in tags_of(client, "a")
    source = client.get_model_version("a", "2").source
    assert source == f"modelyard://{registry.id}/sha256/{model_digest('a2')[7:]}"


def test_aliases_serve_what_they_serve_here_and_the_whole_history_is_kept(
    yard, registry, export, client, promoted, policy
):
    policy(stage=0, prod=0)
    first = promoted("a@1", "old").move
    promoted("a@1", "old", alias="prod", reason="good for all")
    export()
    promoted("b@1", "a", reason="better\nby far")
    done = export()
    assert done.aliases == {"prod": "a@1", "stage": "b@1"}
    assert (done.added, done.updated, done.known) == ((), ("b@1",), ("a@1", "c@1"))
    assert aliases_of(client, "b") == {"stage": "1"}
    assert aliases_of(client, "a") == {"prod": "1"}
    told = tags_of(client, "a")
    kept = json.loads(told["move.stage.1"])
    assert kept == {**first.record(), "approvals": []}
    assert (kept["actor"], kept["evidence_digest"]) == ("ann", first.evidence_digest)
    assert (told["prod.by"], told["prod.why"]) == ("ann", "good for all")
    found = client.search_model_versions("tags.`modelyard.stage.by` = 'ann'")
    assert sorted(each.name for each in found) == ["a", "b"]
    assert (
        "stage 2: promote to b@1 by ann: better by far (evidence"
        in client.get_registered_model("b").description
    )
    assert client.get_registered_model("a").description.count("\n") == 1


def test_a_rollback_moves_the_alias_back_and_adds_to_the_history(yard, registry, export, client, promoted):
    promoted("a@1", "old")
    promoted("b@1", "a")
    export()
    rollback(yard, registry, Rollback(alias="stage", actor="bob", reason="it stutters"))
    assert export().aliases == {"stage": "a@1"}
    assert aliases_of(client, "b") == {}
    assert aliases_of(client, "a") == {"stage": "1"}
    told = tags_of(client, "a")
    assert (told["stage.kind"], told["stage.by"], told["stage.why"]) == ("rollback", "bob", "it stutters")
    assert json.loads(told["move.stage.3"])["from_digest"] == model_digest("b")
    assert "move.stage.2" in tags_of(client, "b") and "move.stage.1" in told


def test_a_second_export_changes_nothing(export, client, promoted):
    promoted("a@1", "old")
    export()
    before = everything(client)
    done = export()  # the times of the last change are compared too
    assert (done.added, done.updated, done.known) == ((), (), ("a@1", "b@1", "c@1"))
    assert everything(client) == before


def test_what_was_changed_there_is_put_right_and_what_others_added_stays(export, client, promoted):
    promoted("a@1", "old")
    export()
    client.set_registered_model_alias("c", "stage", "1")
    client.set_registered_model_alias("a", "canary", "1")
    client.delete_registered_model_alias("a", "stage")
    client.set_model_version_tag("a", "1", "modelyard.stage.by", "mallory")
    client.set_model_version_tag("a", "1", "modelyard.move.stage.9", "{}")
    client.set_model_version_tag("a", "1", "team", "search")
    done = export()
    assert done.updated == ("a@1",)
    told = tags_of(client, "a")
    assert (told["stage.by"], told["team"], "move.stage.9" in told) == ("ann", "search", False)
    assert aliases_of(client, "c") == {}
    assert aliases_of(client, "a") == {"stage": "1", "canary": "1"}


def test_one_name_can_be_exported_alone(yard, registry, export, client, promoted):
    promoted("a@1", "old")
    done = export("b")
    assert (done.added, done.aliases) == (("b@1",), {})
    assert [model.name for model in client.search_registered_models()] == ["b"]
    assert export("a").aliases == {"stage": "a@1"}
    promoted("b@1", "a")
    export("a")
    assert aliases_of(client, "a") == {}
    with pytest.raises(RegistryError, match="z: is not registered"):
        export("z")


def test_versions_keep_their_identity_whatever_number_mlflow_gives_them(yard, registry, export, client):
    """A version that was deleted there comes again under the next number; none is taken for another."""
    register(yard, registry, Candidate(name="a", digest=model_digest("a2")))
    export("a")
    client.delete_model_version("a", "1")
    assert export("a").added == ("a@1",)
    assert tags_of(client, "a", "3")["label"] == "a@1"
    done = export("a")
    assert (done.added, done.known) == ((), ("a@1", "a@2"))


def test_a_model_that_is_not_ours_is_left_alone(export, client):
    client.create_registered_model("b", tags={"team": "search"})
    with pytest.raises(RegistryError, match="b: MLflow has a model of this name that is not b of this reg"):
        export("b")
    assert client.get_registered_model("b").tags == {"team": "search"}
    assert list(client.search_model_versions("name = 'b'")) == []


def test_names_that_mlflow_does_not_take_are_written_otherwise_and_not_mixed_up(
    yard, registry, export, client
):
    assert (allowed_name("org/m:7b'\""), allowed_name("x" * 300)) == ("org_m_7b__", "x" * 240)
    register(yard, registry, Candidate(name="org/m", digest=model_digest("m")))
    register(yard, registry, Candidate(name="org_m", digest=model_digest("n")))
    assert export("org/m").added == ("org/m@1",)
    assert client.get_registered_model("org_m").tags["modelyard.name"] == "org/m"
    with pytest.raises(RegistryError, match="org_m: MLflow has a model of this name that is not org_m"):
        export("org_m")


def move(generation, reason, **changes):
    """One move of many."""
    told = {
        "id": "m", "yard": "y", "alias": "stage", "generation": generation, "kind": "promote", "name": "a",
        "version": 1, "from_digest": None, "to_digest": model_digest("a"), "actor": "ann",
        "at": f"2026-01-{generation:02}T00:00:00+00:00", "reason": reason, "evidence": "r.json",
        "evidence_digest": model_digest("e"), "approvals": (), "required": 0, **changes,
    }  # fmt: skip
    return Move(**told)


def test_a_long_history_fits_into_a_description_newest_first():
    text = description([move(each, "w" * 400) for each in range(1, 29)])
    assert len(text) <= 5000
    lines = text.splitlines()
    assert lines[0].startswith("- 2026-01-28T00:00:00 stage 28: promote to a@1 by ann: www")
    assert len(lines) > 8 and lines[-1] == "older moves: see the versions' tags"
    assert description([]) == ""


def test_a_tag_names_approvers_without_their_signatures_and_bounds_the_reason(registry):
    signed = {"approver": "bob", "at": "t", "signature": {"key_id": "sha256:1", "value": "x" * 90}}
    tags = version_tags(registry.version("a"), [move(1, "w" * 9000, approvals=(signed,))])
    kept = json.loads(tags["modelyard.move.stage.1"])
    assert kept["approvals"] == [{"approver": "bob", "at": "t", "key_id": "sha256:1"}]
    assert kept["reason"] == tags["modelyard.stage.why"] == "w" * 1997 + "..."


def test_a_server_that_is_not_there_is_an_error_that_hides_the_password(registry, place):
    there = f"http://me:secret@127.0.0.1:{free_port()}"
    with pytest.raises(RegistryError, match="start the server, or give another --tracking-uri") as refused:
        MlflowExporter(tracking_uri=there).export(registry)
    assert "me:***@127.0.0.1" in str(refused.value) and "secret" not in str(refused.value)


def test_a_place_that_mlflow_does_not_take_is_an_error(registry, place):
    with pytest.raises(RegistryError, match="nothing://there"):
        MlflowExporter(tracking_uri="nothing://there").export(registry)


def test_without_an_address_it_goes_where_mlflow_finds_its_own(registry, place, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    assert MlflowExporter().export(registry, "b").place == place
    assert tags_of(client, "b")["label"] == "b@1"


@pytest.fixture
def call(yard):
    return lambda *arguments: CliRunner().invoke(
        cli, ["registry", "export", *arguments, "--to", "mlflow", "--yard", str(yard.root)]
    )


def test_the_command_tells_where_and_how_many(call, place, client, promoted):
    promoted("a@1", "old")
    made = call("--tracking-uri", place)
    assert (made.exit_code, made.stdout) == (
        0, f"{place}: 3 versions added, 0 updated, 0 there already\n  stage: a@1\n",
    ), made.exception  # fmt: skip
    assert json.loads(call("a", "--tracking-uri", place, "--json").stdout) == {
        "to": "mlflow", "place": place, "added": [], "updated": [], "known": ["a@1"],
        "aliases": {"stage": "a@1"},
    }  # fmt: skip


def test_one_export_of_a_registry_at_a_time(call, place, yard, registry):
    with held(yard.root / "registry-export.lock"):
        refused = call("--tracking-uri", place)
    assert isinstance(refused.exception, RegistryError)
    assert "another process exports this registry" in str(refused.exception)
