"""`promote`, `rollback` and the group `registry`: what they print, and their exit statuses."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from modelyard.cli.promote import command as promote_command
from modelyard.cli.registry import command as registry_group
from modelyard.cli.rollback import command as rollback_command
from modelyard.core.errors import EvidenceError, RegistryError, SignatureError, StateError
from modelyard.core.signing import OWN_KEY, TRUSTED, open_signer
from modelyard.evaluation.pool import read_pool
from modelyard.runs.yard import open_yard
from modelyard.testing.certificates import MadeUp, make_certificate, model_digest

COMMANDS = {"promote": promote_command, "rollback": rollback_command, "registry": registry_group}


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Call a command in the folder of a yard; the first word says which."""
    monkeypatch.chdir(tmp_path)
    open_yard(tmp_path / ".modelyard", create=True)

    def call(name, *arguments):
        return CliRunner().invoke(COMMANDS[name], [str(each) for each in arguments])

    return call


@pytest.fixture
def told(ask):
    """Call a command with --json; what it printed, and its status."""

    def call(*arguments, status=0):
        result = ask(*arguments, "--json")
        assert result.exit_code == status, (result.output, result.exception)
        return json.loads(result.stdout)

    return call


@pytest.fixture
def report(ask, tmp_path):
    """Makes certificates in the folder."""
    signer = open_signer(tmp_path / ".modelyard/keys" / OWN_KEY, create=True)
    return lambda candidate, baseline: make_certificate(
        tmp_path / f"{candidate}-{baseline}", MadeUp(candidate=candidate, baseline=baseline), signer
    )


@pytest.fixture
def bob(tmp_path, report):
    """The key of somebody who may approve."""
    signer = open_signer(tmp_path / "bob.key", create=True)
    (tmp_path / ".modelyard/keys" / TRUSTED / "bob.pem").write_text(signer.public_pem)
    return tmp_path / "bob.key"


@pytest.fixture
def served(ask, report, bob):
    """Stage and prod went from a to b."""
    for candidate, baseline in (("a", "x"), ("b", "a")):
        path = report(candidate, baseline)
        assert ask("registry", "register", candidate, "--evidence", path).exit_code == 0
        told = ("promote", candidate, "--evidence", path, "--as", "ann", "--reason", f"{candidate} is better")
        assert ask(*told, "--to", "stage").exit_code == 0
        assert ask(*told, "--to", "prod", "--approve", "--key", bob).exit_code == 0


def test_from_a_certificate_to_prod_and_back(ask, report, bob, told):
    path = report("a", "x")
    made = ask("registry", "register", "a", "--evidence", path)
    assert made.output == f"a@1: {model_digest('a')}\n"
    dry = ask("promote", "a", "--to", "stage", "--evidence", path, "--dry-run")
    assert dry.output.startswith("stage would serve a@1 (")
    assert told("registry", "list")["aliases"] == {}
    moved = ask("promote", "a", "--to", "stage", "--evidence", path)
    assert moved.output == f"stage serves a@1 ({model_digest('a')[7:19]}), generation 1, after none\n"
    waiting = ask("promote", "a", "--to", "prod", "--evidence", path)
    assert waiting.exit_code == 6
    assert waiting.stdout.startswith("prod does not yet serve a@1")
    assert "0 of 1 approvals: nobody\n1 missing; may approve: bob\n" in waiting.stderr
    record = told("promote", "a", "--to", "prod", "--evidence", path, status=6)
    assert (record["result"], record["approvals"]["missing"]) == ("waiting", 1)
    assert len(record["approvals"]["may_approve"]) == 1
    done = told(
        "promote", "a@1", "--to", "prod", "--evidence", path, "--approve", "--key", bob, "--as", "bob"
    )
    assert (done["result"], done["move"]["alias"], done["move"]["generation"]) == ("moved", "prod", 1)
    assert [each["approver"] for each in done["move"]["approvals"]] == ["bob"]
    again = ask("promote", "a", "--to", "prod", "--evidence", path)
    assert (again.exit_code, again.output[:24]) == (0, "prod already serves a@1 ")


def test_a_reason_holds_no_secret(ask, served, report, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPLOY_TOKEN", "planted-4c07d1")
    bearer = "Authorization: Bearer abcdefgh12345"
    path = report("c", "b")
    assert ask("registry", "register", "c", "--evidence", path).exit_code == 0
    for words in (
        ("promote", "c", "--to", "stage", "--evidence", path, "--reason", f"told planted-4c07d1, {bearer}"),
        ("rollback", "stage", "--reason", f"undo planted-4c07d1, {bearer}"),
    ):
        assert ask(*words).exit_code == 0
    told = ask("registry", "history", "stage").output
    assert "why: told [redacted], Authorization: [redacted]\n" in told
    assert "why: undo [redacted], Authorization: [redacted]\n" in told
    files = [each.read_bytes() for each in (tmp_path / ".modelyard").rglob("*") if each.is_file()]
    assert not [each for each in files if b"planted-4c07d1" in each or b"abcdefgh12345" in each]


def test_a_rollback_its_rehearsal_and_its_drill(ask, told, served):
    assert ask("rollback", "prod").exit_code == 2
    assert told("rollback", "prod", "--reason", "r", "--dry-run")["result"] == "would_move"
    drilled = told("rollback", "prod", "--drill")
    assert (drilled["result"], drilled["faults"], drilled["move"]["name"]) == ("works", [], "a")
    assert "a rollback would work: prod would serve a@1" in ask("rollback", "prod", "--drill").output
    assert told("registry", "list")["aliases"]["prod"]["name"] == "b"
    back = ask("rollback", "prod", "--reason", "it loops", "--as", "ann")
    assert back.output.startswith("prod serves a@1 (")
    failed = ask("rollback", "prod", "--reason", "again")
    assert isinstance(failed.exception, RegistryError)
    history = told("registry", "history", "prod")
    assert [(move["kind"], move["actor"], move["reason"]) for move in history] == [
        ("bootstrap", "ann", "a is better"),
        ("promote", "ann", "b is better"),
        ("rollback", "ann", "it loops"),
    ]


def test_a_drill_that_fails_says_so(ask, told, served, tmp_path):
    move = told("registry", "history", "prod")[0]
    (tmp_path / ".modelyard" / move["evidence"]).unlink()
    drilled = told("rollback", "prod", "--drill", status=1)
    assert (drilled["result"], len(drilled["faults"])) == ("fails", 1)
    said = ask("rollback", "prod", "--drill")
    assert said.exit_code == 1
    assert "a rollback would fail" in said.stdout
    assert isinstance(ask("rollback", "prod", "--reason", "r").exception, EvidenceError)


def test_what_is_there_is_told(ask, told, served):
    listed = ask("registry", "list").output.splitlines()
    assert listed[0].split() == ["version", "digest", "registered", "serves", "as"]
    assert listed[1].startswith(f"a@1      {model_digest('a')[7:19]}")
    assert listed[2].endswith("prod, stage")
    shown = ask("registry", "show", "b").output
    assert "serves as             prod, stage" in shown
    assert f"digest                {model_digest('b')}" in shown
    assert "promote to prod by ann: b is better" in shown
    assert told("registry", "show", "b@1")["serves_as"] == ["prod", "stage"]
    assert isinstance(ask("registry", "show", "c").exception, RegistryError)
    history = ask("registry", "history").output
    assert "prod 2: promote to b@1" in history
    assert "approved by ann" in history
    assert "why: b is better" in history
    assert len(told("registry", "approvals")) == len(told("registry", "approvals", "prod")) == 2
    assert told("registry", "approvals", "stage") == []
    assert "prod 2: b@1" in ask("registry", "approvals").output


def test_verify_and_reconcile(ask, told, served, tmp_path):
    sound = ask("registry", "verify")
    assert (sound.exit_code, sound.output) == (0, "2 versions, 4 moves: SOUND\n")
    assert told("registry", "verify")["faults"] == []
    assert ask("registry", "reconcile").output == "nothing was half done\n"
    assert told("registry", "reconcile") == {"moved": [], "abandoned": [], "registered": 0, "approvals": 0}
    move = told("registry", "history", "stage")[0]
    (tmp_path / ".modelyard" / move["evidence"]).unlink()
    spoilt = ask("registry", "verify")
    assert spoilt.exit_code == 1
    assert spoilt.stdout.endswith("NOT SOUND\n")
    assert "stage generation 1: " in spoilt.stderr
    assert len(told("registry", "verify", status=1)["faults"]) == 2  # prod's first move has the same evidence


def test_keys_are_made_and_trusted_by_name(ask, told, tmp_path):
    key = told("registry", "key", "people/eve.key")
    assert (tmp_path / "people/eve.key").stat().st_mode & 0o077 == 0
    assert told("registry", "key", "people/eve.key") == key
    assert told("registry", "trust", key["public"], "--name", "eve")["key_id"] == key["key_id"]
    assert ask("registry", "trust", "people/eve.key", "--name", "eve").output == f"eve: {key['key_id']}\n"
    (entry,) = [
        e for e in open_yard(tmp_path / ".modelyard", create=False).journal.read() if e.kind == "key.trusted"
    ]
    assert (entry.data["name"], "PRIVATE" in entry.data["public_key"]) == ("eve", False)
    told("registry", "key", "people/cy.key")
    taken = ask("registry", "trust", "people/cy.key.pub.pem", "--name", "eve")
    assert "is another key" in str(taken.exception)
    assert "no name for a key's file" in str(
        ask("registry", "trust", "people/cy.key", "--name", "../x").exception
    )
    assert isinstance(ask("registry", "trust", "none.pem", "--name", "cy").exception, SignatureError)


def test_a_model_of_the_pool_is_registered_by_its_identity(told, tmp_path):
    entry = {"name": "far", "endpoint": "http://127.0.0.1:9/v1", "model": "m"}
    (tmp_path / "yard.yaml").write_text(yaml.safe_dump({"name": "small", "pool": [entry]}))
    version = told("registry", "register", "far", "--pool", "yard.yaml", "--trained-by", "somebody")
    (model,) = read_pool({"pool": [entry]}, path=tmp_path / "yard.yaml")
    assert (version["digest"], version["entry"]) == (model.digest, model.entry)
    assert version["trained_by"] == "somebody"


def test_the_registry_may_be_elsewhere(ask, told, report, tmp_path, monkeypatch):
    path, url = report("a", "x"), f"sqlite:///{tmp_path / 'shared' / 'registry.db'}"
    assert told("registry", "register", "a", "--evidence", path, "--registry", url)["version"] == 1
    monkeypatch.setenv("MODELYARD_REGISTRY", url)
    assert told("promote", "a", "--to", "stage", "--evidence", path)["result"] == "moved"
    monkeypatch.delenv("MODELYARD_REGISTRY")
    assert told("registry", "list")["versions"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("registry", "register", "a"), "one of --evidence, --pool and --digest"),
        (
            ("registry", "register", "a", "--digest", "d", "--evidence", "e"),
            "one of --evidence, --pool and --digest",
        ),
        (("promote", "a", "--to", "stage", "--evidence", "e", "--approve"), "belong together"),
        (("promote", "a", "--to", "stage", "--evidence", "e", "--key", "k"), "belong together"),
        (("promote", "a", "--to", "live", "--evidence", "e"), "'live' is not one of"),
        (("rollback", "prod"), "--reason"),
    ],
)
def test_what_cannot_be_asked(ask, words, said):
    result = ask(*words)
    assert result.exit_code == 2
    assert said in result.output


def test_errors_of_ours_are_raised_for_the_command_line_to_print(ask, tmp_path):
    assert isinstance(ask("registry", "register", "a", "--digest", "sha256:1").exception, RegistryError)
    assert isinstance(ask("registry", "register", "a", "--evidence", "none").exception, RegistryError)
    assert isinstance(ask("registry", "list", "--yard", "nowhere").exception, StateError)
    assert isinstance(ask("promote", "a", "--to", "stage", "--evidence", "none").exception, EvidenceError)


def test_every_command_of_the_group_loads(ask):
    for name in registry_group.list_commands(None):
        result = ask("registry", name, "--help")
        assert result.exit_code == 0, name
        assert "--json" in result.output


def test_the_name_of_a_key_is_that_of_one_file(ask, tmp_path):
    ask("registry", "key", "bea.pem")
    result = ask("registry", "trust", "bea.pem.pub.pem", "--name", "team/bea")
    assert isinstance(result.exception, RegistryError)
    assert not (tmp_path / ".modelyard" / "keys" / "trusted" / "team").exists()


def test_reports_that_no_reader_can_read_are_refused(ask, tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    named = {"schema": "modelyard.paired_eval_report/1", "raw_outputs": "a\0b"}
    (tmp_path / "null.json").write_text(json.dumps(named))
    for report in ("deep.json", "null.json"):
        assert isinstance(ask("promote", "a", "--to", "stage", "--evidence", report).exception, EvidenceError)
    assert isinstance(ask("registry", "register", "a", "--evidence", "deep.json").exception, RegistryError)
