"""Providers as data: what a folder of YAML files says, and what may not stand in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.lifecycle.governed.world import LOCAL, OTHER, REPLIES, TOKEN, World

from modelyard.core.errors import DocumentError
from modelyard.lifecycle.governed.declaration import read_governance
from modelyard.lifecycle.governed.providers import read_providers


def test_a_folder_of_files_is_read_by_name(world: World) -> None:
    providers = read_providers(world.folder / "providers", {})
    assert sorted(providers.known) == ["local", "other", "replies"]
    local = providers.known["local"]
    assert local.train is not None
    assert (local.train.backend, local.train.infer, local.train.secrets) == (
        "local", ("replies",), ("PROVIDER_TOKEN",),
    )  # fmt: skip
    assert providers.route("local", "replies").why == ""


def test_a_provider_that_lists_nobody_goes_with_all(world: World) -> None:
    world.provider({**LOCAL, "train": {**LOCAL["train"], "infer": []}})
    assert read_providers(world.folder / "providers", {}).route("local", "other").why == ""


@pytest.mark.parametrize(
    ("record", "place"),
    [
        ({**LOCAL, "train": {**LOCAL["train"], "run": f"train --key {TOKEN}"}}, "train.run"),
        ({**LOCAL, "train": {**LOCAL["train"], "api_key": "abc"}}, "train.api_key"),
        ({**OTHER, "infer": {"entry": {"endpoint": "https://ann:pw@host/v1"}}}, "infer.entry.endpoint"),
        ({**OTHER, "infer": {"entry": {"api_key": "sk-1234567890abcdefghij"}}}, "infer.entry.api_key"),
        ({**REPLIES, "infer": {"entry": {"options": ["x", {"y": TOKEN}]}}}, "infer.entry.options[1].y"),
    ],
)
def test_a_secret_in_a_file_is_refused_by_its_place_and_never_shown(
    world: World, record: Mapping[str, Any], place: str
) -> None:
    world.provider(record)
    with pytest.raises(DocumentError) as caught:
        read_providers(world.folder / "providers", world.environment)
    assert [fault.key for fault in caught.value.faults] == [place]
    assert not any(secret in str(caught.value) for secret in (TOKEN, "abc", ":pw@", "sk-1234"))


def test_the_name_of_a_variable_is_no_secret(world: World) -> None:
    entry = {"engine": "openai", "endpoint": "http://127.0.0.1:9", "model": "m", "api_key": "OPENAI_API_KEY"}
    world.provider({"name": "vendor", "infer": {"entry": entry}})
    assert "vendor" in read_providers(world.folder / "providers", world.environment).known


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"name": "local"}, "neither trains nor infers"),
        ({**LOCAL, "tran": {}}, "did you mean train"),
        ({"name": "local", "train": {"backend": "local"}}, "train.run: is missing"),
        ({"name": "local", "infer": {}}, "infer.entry: is missing"),
        ({**LOCAL, "name": "a b"}, "is not a name"),
        ({**LOCAL, "schema": "modelyard.provider/9"}, "is not known"),
    ],
)
def test_a_fault_names_the_place_and_the_remedy(world: World, record: Mapping[str, Any], told: str) -> None:
    (world.folder / "providers" / "local.yaml").unlink()
    world.provider(record)
    with pytest.raises(DocumentError, match=told):
        read_providers(world.folder / "providers", {})


def test_one_name_in_two_files_is_a_fault_of_the_second(world: World) -> None:
    text = (world.folder / "providers" / "local.yaml").read_text()
    (world.folder / "providers" / "mine.yaml").write_text(text)
    with pytest.raises(DocumentError, match=r"is the name in .*local\.yaml too"):
        read_providers(world.folder / "providers", {})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"candidates": []}, "names no candidate"),
        ({"claim": "non_inferiority"}, "margin: is missing"),
        ({"margin": 0.02}, "has no meaning for superiority"),
        ({"candidates": [{"name": "a", "base": "b"}, {"name": "a", "base": "c"}]}, "is named twice"),
        ({"packk": "x"}, "did you mean pack"),
        ({"budget": {"iterations": 0}}, "budget.iterations"),
        ({"candidates": [{"name": "a", "base": TOKEN}]}, "candidates.0..base: holds a secret"),
    ],
)
def test_faults_of_the_declaration(world: World, changed: dict[str, Any], told: str) -> None:
    world.declare(**changed)
    with pytest.raises(DocumentError, match=told) as caught:
        read_governance(world.file, world.environment)
    assert TOKEN not in str(caught.value)
