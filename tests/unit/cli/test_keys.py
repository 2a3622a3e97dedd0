"""`keys create | list | revoke`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from modelyard.core.errors import GatewayError, StateError
from modelyard.gateway.accounts.key_ring import KeyProblem, KeyRing
from modelyard.gateway.accounts.key_store import KeyStore
from modelyard.gateway.accounts.keys import VirtualKey

Call = Callable[..., Result]
ASKED = (
    "--name", "batch", "--limit-usd", "10/day", "--rpm", "60", "--tpm", "5000", "--parallel", "4",
    "--models", "a, b", "--expires", "30d", "--log-prompts",
)  # fmt: skip


def test_a_key_is_made_as_asked_and_its_token_opens(call: Call, tmp_path: Path) -> None:
    made = json.loads(call("keys", "create", *ASKED, "--json").stdout)
    assert (made["name"], made["models"], made["log_prompts"]) == ("batch", ["a", "b"], True)
    assert made["limits"] == {
        "spend": {"nano_usd": 10_000_000_000, "period": "day"}, "rpm": 60, "tpm": 5000, "parallel": 4,
    }  # fmt: skip
    assert made["expires_at_s"] - made["created_at_s"] == 30 * 86_400
    with KeyStore(tmp_path / ".modelyard" / "gateway") as store:
        key = KeyRing(store).find(made["token"].encode(), made["created_at_s"])
    assert isinstance(key, VirtualKey)
    assert key.id == made["id"]


def test_standard_output_is_the_token_alone(call: Call) -> None:
    result = call("keys", "create")
    assert result.stdout.startswith("sk-my-")
    assert len(result.stdout.split()) == 1
    assert "cannot be shown again" in result.stderr


def test_keys_are_listed_without_their_tokens(call: Call) -> None:
    first = json.loads(call("keys", "create", *ASKED, "--json").stdout)
    second = json.loads(call("keys", "create", "--json").stdout)
    call("keys", "revoke", second["id"])
    text = call("keys", "list").stdout
    head, *lines = [line.split() for line in text.splitlines()]
    assert head == ["id", "name", "token", "state", "spent", "USD", "limits", "models"]
    assert lines[0][:3] == [first["id"], "batch", f"...{first['token'][-4:]}"]
    assert lines[0][-10:] == [
        "0.00",
        "10.00/day",
        "USD,",
        "60",
        "rpm,",
        "5000",
        "tpm,",
        "4",
        "parallel",
        "a,b",
    ]
    assert lines[1] == [second["id"], f"...{second['token'][-4:]}", "revoked", "0.00", "none", "all"]
    machine = call("keys", "list", "--json").stdout
    assert [each["state"].partition(" ")[0] for each in json.loads(machine)] == ["until", "revoked"]
    for token in (first["token"], second["token"]):
        secret = token.split("-", 3)[3]
        assert secret not in text
        assert secret not in machine


def test_a_revoked_key_opens_nothing(call: Call, tmp_path: Path) -> None:
    made = json.loads(call("keys", "create", "--name", "old", "--json").stdout)
    said = call("keys", "revoke", made["id"]).stdout
    assert said.startswith(f"key {made['id']} old: revoked at 20")
    with KeyStore(tmp_path / ".modelyard" / "gateway") as store:
        assert KeyRing(store).find(made["token"].encode(), 0.0) is KeyProblem.REVOKED


def test_without_a_key_the_list_says_how_to_make_one(call: Call, tmp_path: Path) -> None:
    call("keys", "create")
    (tmp_path / ".modelyard" / "gateway" / "keys.db").unlink()
    assert "no key yet; make one with `modelyard keys create`" in call("keys", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--limit-usd", "ten"), "spend limit = ten: is not an amount"),
        (("--limit-usd", ""), "spend limit = : is not an amount"),
        (("--expires", "soon"), "time to live = soon: is not a length of time"),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is_made(
    call: Call, tmp_path: Path, arguments: tuple[str, str], said: str
) -> None:
    result = call("keys", "create", *arguments)
    assert isinstance(result.exception, GatewayError)
    assert said in str(result.exception)
    assert not (tmp_path / ".modelyard").exists()


@pytest.mark.parametrize("models", ["", ",", " , "])
def test_no_model_is_not_all_models(call: Call, tmp_path: Path, models: str) -> None:
    result = call("keys", "create", "--models", models)
    assert result.exit_code == 2
    assert "no model is named" in result.stderr
    assert not (tmp_path / ".modelyard").exists()


def test_where_there_is_no_yard_nothing_is_revoked(call: Call) -> None:
    assert isinstance(call("keys", "revoke", "abc").exception, StateError)
