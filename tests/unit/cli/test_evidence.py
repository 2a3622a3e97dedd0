"""`modelyard evidence verify`: real certificates, recomputed, rescored, and looked up in their yard."""

from __future__ import annotations

import json

import pytest
import yaml

from modelyard.core.digests import canonical_json, digest_bytes
from modelyard.core.errors import StateError
from modelyard.core.signing import open_signer

REPORT = "paired_eval_report.json"
WRONG = {"old": range(1, 13), "new": [39]}


@pytest.fixture
def certificate(call, tmp_path):
    """The folder of a certificate of two recorded models, and its yard."""
    pool = []
    for name, missed in WRONG.items():
        lines = [{"example_id": f"q{i}", "text": "no" if i in missed else "yes"} for i in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        pool.append({"name": name, "engine": "replay", "answers": f"{name}.jsonl"})
    (tmp_path / "yard.yaml").write_text(yaml.safe_dump({"name": "small", "pool": pool}))
    items = [
        {"prompt_id": f"q{i}", "prompt": f"Is {i} so?", "scorer": {"id": "exact"}, "answers": ["yes"]}
        for i in range(40)
    ]
    (tmp_path / "pack.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    made = call("certify", "--candidate", "new", "--baseline", "old", "--pack", "pack.jsonl")
    assert made.exit_code == 0, made.output
    (folder,) = (tmp_path / ".modelyard" / "certificates").iterdir()
    return folder


def forged(folder, key, change):
    """Change a certificate as who may sign would: digests and signature are made anew."""
    report = json.loads((folder / REPORT).read_text())
    del report["signature"]
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    change(report, answers)
    content = b"".join(canonical_json(line) + b"\n" for line in answers)
    (folder / "answers.jsonl").write_bytes(content)
    report["raw_outputs_digest"] = digest_bytes(content)
    (folder / REPORT).write_text(json.dumps(open_signer(key, create=False).sign(report)))


def test_a_certificate_holds_with_nothing_but_its_files(call, certificate):
    alone = call("evidence", "verify", certificate / REPORT)
    assert alone.exit_code == 0, alone.output
    assert alone.stdout.startswith("verdict:   pass\n") and alone.stdout.endswith("HOLDS\n")
    assert "(nobody said whom to trust)" in alone.stdout


def test_whom_to_trust_is_told_by_a_folder_or_by_the_yard(call, certificate, tmp_path):
    trusted = tmp_path / ".modelyard" / "keys" / "trusted"
    for told in (("--trusted", trusted), ("--yard", tmp_path / ".modelyard")):
        done = call("evidence", "verify", certificate / REPORT, *told)
        assert done.exit_code == 0 and "nobody said" not in done.stdout, done.output
    (tmp_path / "others").mkdir()
    refused = call("evidence", "verify", certificate / REPORT, "--trusted", tmp_path / "others")
    assert refused.exit_code == 1 and "is none of the 0 trusted ones" in refused.stderr
    assert refused.stdout.endswith("DOES NOT HOLD\n")
    nothing = call("evidence", "verify", certificate / REPORT, "--yard", tmp_path / "others")
    assert isinstance(nothing.exception, StateError)


def test_machines_get_one_value(call, certificate):
    told = json.loads(call("evidence", "verify", certificate / REPORT, "--json").stdout)
    assert (told["holds"], told["faults"], told["verdict"]) == (True, [], "pass")
    (certificate / "answers.jsonl").write_text("")
    bad = call("evidence", "verify", certificate / REPORT, "--json")
    assert bad.exit_code == 1 and json.loads(bad.stdout)["holds"] is False


def test_a_text_that_is_not_worth_its_score_is_found_by_scoring_it_anew(call, certificate, tmp_path):
    """Who forges texts alone keeps every figure; only the scorers tell."""

    def change(_report, answers):
        line = next(each for each in answers if each["score"] == 1)
        line["text"] = "perhaps"

    assert call("evidence", "verify", certificate / REPORT, "--rescore").exit_code == 0
    forged(certificate, tmp_path / ".modelyard" / "keys" / "yard.pem", change)
    assert call("evidence", "verify", certificate / REPORT).exit_code == 0
    found = call("evidence", "verify", certificate / REPORT, "--rescore")
    assert found.exit_code == 1 and "has the score 1, scored anew it is 0.0" in found.stderr


def test_a_scorer_of_another_version_cannot_score_anew(call, certificate, tmp_path):
    def change(_report, answers):
        answers[0]["scorer_version"] = "0"

    forged(certificate, tmp_path / ".modelyard" / "keys" / "yard.pem", change)
    found = call("evidence", "verify", certificate / REPORT, "--rescore")
    assert found.exit_code == 1
    assert "was scored by exact 0, and 1 is installed: it cannot be scored anew" in found.stderr


def test_the_yard_knows_what_it_issued(call, certificate, tmp_path):
    """The same figures, signed by the same key, but another report than the one on record."""
    forged(certificate, tmp_path / ".modelyard" / "keys" / "yard.pem", lambda r, _: r.update(run_id="other"))
    assert call("evidence", "verify", certificate / REPORT).exit_code == 0
    found = call("evidence", "verify", certificate / REPORT, "--yard", tmp_path / ".modelyard")
    assert found.exit_code == 1 and "journal: the report that was issued has the digest" in found.stderr


def test_a_pack_that_is_not_the_one_that_was_opened_is_noticed(call, certificate, tmp_path):
    """Unwelcome items taken out of the snapshot too: sound in itself, but the yard opened others."""

    def change(report, answers):
        content = (certificate / "pack.jsonl").read_bytes()
        changed = content.replace(b"Is 7 so?", b"Is 8 so?")
        assert changed != content
        (certificate / "pack.jsonl").write_bytes(changed)
        report["prompt_pack"]["snapshot_digest"] = digest_bytes(changed)

    forged(certificate, tmp_path / ".modelyard" / "keys" / "yard.pem", change)
    assert call("evidence", "verify", certificate / REPORT).exit_code == 0
    found = call("evidence", "verify", certificate / REPORT, "--yard", tmp_path / ".modelyard")
    assert "opened a pack of items_digest" in found.stderr


def test_a_yard_that_issued_nothing_knows_no_certificate(call, certificate, tmp_path):
    call("audit", "anchor", "--out", "anchor.json")
    (tmp_path / ".modelyard" / "journal" / "journal.jsonl").write_text("")
    (tmp_path / ".modelyard" / "journal" / "head.json").unlink()
    found = call("evidence", "verify", certificate / REPORT, "--yard", tmp_path / ".modelyard")
    assert found.exit_code == 1
    assert (
        "opened its pack" in found.stderr and "no entry says that the certificate was issued" in found.stderr
    )
    audit = call("audit", "verify", "--anchor", "anchor.json")
    assert "is there, but no entry at all: the log was deleted" in audit.stderr
    assert "the log was deleted" in audit.stderr.splitlines()[-1]
