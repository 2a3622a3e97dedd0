"""`modelyard evidence export` and `verify-statement`, called as a user does."""

from __future__ import annotations

import json

import pytest

from modelyard.core.errors import EvidenceError, SignatureError
from modelyard.core.signing import OWN_KEY, open_signer
from modelyard.runs.yard import open_yard
from modelyard.testing.certificates import MadeUp, make_certificate, model_digest


@pytest.fixture
def report(tmp_path):
    """The report of a certificate that the yard beside it signed."""
    yard = open_yard(tmp_path / ".modelyard", create=True)
    signer = open_signer(yard.keys_dir / OWN_KEY, create=True)
    return make_certificate(tmp_path / "made", MadeUp(candidate="new", baseline="old"), signer)


@pytest.fixture
def export(call, report):
    return lambda *more: call("evidence", "export", report, "--format", "in-toto", "--out", "new.json", *more)


def test_a_certificate_goes_out_and_is_checked_offline(call, export, report):
    done = export()
    assert done.exit_code == 0 and done.stdout.startswith("new.json: pass for new, signed by sha256:")
    told = call("evidence", "verify-statement", "new.json", "--report", report)
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith(f"verdict:   pass\ncandidate: {model_digest('new')} (new)\n")
    assert told.stdout.endswith("HOLDS\n")


def test_machines_get_one_value(call, export, tmp_path):
    made = json.loads(export("--json").stdout)
    assert (made["format"], made["verdict"], made["subject"]["name"]) == ("in-toto", "pass", "new")
    trusted = tmp_path / ".modelyard" / "keys" / "trusted"
    told = json.loads(call("evidence", "verify-statement", "new.json", "--trusted", trusted, "--json").stdout)
    assert told == {
        "subject": "new", "digest": model_digest("new"), "verdict": "pass", "key_id": made["key_id"],
        "faults": [], "holds": True,
    }  # fmt: skip


def test_another_key_may_sign_and_counts_for_those_who_trust_it(call, export, tmp_path):
    call("registry", "key", "ann.key")
    export("--key", "ann.key")
    refused = call("evidence", "verify-statement", "new.json")
    assert isinstance(refused.exception, SignatureError) and "none of the 1 trusted keys" in str(
        refused.exception
    )
    call("registry", "trust", "ann.key.pub.pem", "--name", "ann")
    assert call("evidence", "verify-statement", "new.json").exit_code == 0


def test_a_certificate_that_does_not_hold_is_not_exported(export, report, tmp_path):
    report.with_name("answers.jsonl").write_text("")
    refused = export()
    assert isinstance(refused.exception, EvidenceError) and "does not hold" in str(refused.exception)
    assert not (tmp_path / "new.json").exists()


def test_a_certificate_by_somebody_unknown_is_not_exported(export, report, tmp_path):
    stranger = open_signer(tmp_path / "stranger.key", create=True)
    make_certificate(report.parent, MadeUp(candidate="new", baseline="old"), stranger)
    refused = export()
    assert isinstance(refused.exception, EvidenceError) and "signature" in str(refused.exception)


def test_a_statement_of_another_certificate_does_not_hold(call, export, report, tmp_path):
    export()
    signer = open_signer(tmp_path / ".modelyard" / "keys" / OWN_KEY, create=False)
    other = make_certificate(tmp_path / "other", MadeUp(candidate="new", baseline="old", wins=9), signer)
    found = call("evidence", "verify-statement", "new.json", "--report", other)
    assert found.exit_code == 1 and found.stdout.endswith("DOES NOT HOLD\n")
    assert "counts: the statement says" in found.stderr and "report: the statement says" in found.stderr
