"""Approvals: whose word counts, for what, and how often."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelyard.core.errors import RegistryError
from modelyard.core.signing import Signer, open_signer
from modelyard.registry.approvals import Seats, Subject, signed_approval, tally
from modelyard.registry.policy import Rule

SUBJECT = Subject(
    alias="prod", generation=3, name="small", version=2, digest="sha256:d", evidence_digest="sha256:e"
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Signer]:
    """Keys of people, by name."""
    folder = tmp_path_factory.mktemp("keys")
    names = ("ann", "bob", "cy", "eve")
    return {name: open_signer(folder / f"{name}.key", create=True) for name in names}


@pytest.fixture
def seats(keys: dict[str, Signer]) -> Seats:
    """Ann, Bob and Cy are trusted, Eve is not; two must approve; the certificate is nobody's of them."""
    trusted = {keys[name].key_id: keys[name].public_pem for name in ("ann", "bob", "cy")}
    return Seats(rule=Rule(approvals=2), trusted=trusted, trainers=frozenset(), certifier="sha256:yard")


@pytest.fixture
def by(keys):
    """An approval by a name's key."""

    def approve(who, /, **changes):
        approver = changes.pop("approver", who)
        return signed_approval(replace(SUBJECT, **changes), keys[who], approver=approver, at="now")

    return approve


def test_two_of_three_are_enough_and_the_third_may_still(by, seats, keys):
    one = tally(SUBJECT, [by("ann")], seats)
    assert (len(one.counted), one.missing, one.enough) == (1, 1, False)
    assert set(one.open_seats) == {keys["bob"].key_id, keys["cy"].key_id}
    two = tally(SUBJECT, [by("ann"), by("cy")], seats)
    assert (len(two.counted), two.missing, two.enough) == (2, 0, True)
    assert two.open_seats == (keys["bob"].key_id,)


def test_a_key_counts_once_whatever_name_it_gives(by, seats):
    counted = tally(SUBJECT, [by("ann"), by("ann", approver="bob"), by("ann", approver="cy")], seats)
    assert len(counted.counted) == 1
    assert not counted.enough


def test_a_key_that_is_not_trusted_does_not_count(by, seats):
    counted = tally(SUBJECT, [by("ann"), by("eve")], seats)
    assert not counted.enough
    assert counted.refused[0].startswith("eve: the record is signed by")


@pytest.mark.parametrize(
    "change",
    [
        {"alias": "stage"}, {"generation": 4}, {"version": 3}, {"name": "large"}, {"digest": "sha256:x"},
        {"evidence_digest": "sha256:x"},
    ],
)  # fmt: skip
def test_an_approval_of_something_else_does_not_count(by, seats, change):
    counted = tally(SUBJECT, [by("ann"), by("bob", **change)], seats)
    assert not counted.enough
    assert f"is for another {next(iter(change))}" in counted.refused[0]


def test_an_approval_that_was_changed_does_not_count(by, seats):
    changed = {**by("bob", digest="sha256:x"), "digest": SUBJECT.digest}
    counted = tally(SUBJECT, [by("ann"), changed], seats)
    assert not counted.enough
    assert "was changed after it was signed" in counted.refused[0]


@pytest.mark.parametrize("trainer", ["key", "name"])
def test_who_trained_it_does_not_count(by, seats, keys, trainer):
    trained = frozenset({keys["bob"].key_id if trainer == "key" else "bob"})
    counted = tally(SUBJECT, [by("ann"), by("bob")], replace(seats, trainers=trained))
    assert (len(counted.counted), counted.missing) == (1, 1)
    assert "trained the model" in counted.refused[0]


def test_who_signed_the_certificate_is_not_enough_alone(by, seats, keys):
    alone = replace(seats, rule=Rule(approvals=1), certifier=keys["ann"].key_id)
    assert not tally(SUBJECT, [by("ann")], alone).enough
    assert tally(SUBJECT, [by("ann")], alone).certifier_alone
    for given in ([], [by("ann")]):
        assert set(tally(SUBJECT, given, alone).open_seats) == {keys["bob"].key_id, keys["cy"].key_id}
    assert tally(SUBJECT, [by("ann"), by("bob")], alone).enough
    assert tally(SUBJECT, [by("bob")], alone).enough
    both = tally(SUBJECT, [by("ann"), by("bob")], replace(alone, rule=Rule(approvals=2)))
    assert both.enough
    assert not tally(SUBJECT, [by("ann")], replace(alone, rule=Rule(approvals=2))).certifier_alone


def test_only_those_whom_the_policy_names_count(by, seats, keys):
    named = replace(seats, rule=Rule(approvals=1, approvers=(keys["cy"].key_id, "sha256:gone")))
    counted = tally(SUBJECT, [by("ann"), by("bob")], named)
    assert not counted.enough
    assert counted.open_seats == (keys["cy"].key_id,)
    assert all("not among the approvers" in said for said in counted.refused)
    assert tally(SUBJECT, [by("cy")], named).enough


def test_where_nobody_need_approve_none_is_missing(seats):
    assert tally(SUBJECT, [], replace(seats, rule=Rule(approvals=0))).enough


def test_an_approval_of_another_schema_does_not_count(keys, seats, by):
    record = keys["bob"].sign({"schema": "other/1", **SUBJECT.record(), "approver": "bob", "at": "now"})
    assert not tally(SUBJECT, [by("ann"), record], seats).enough


def test_an_approval_needs_a_name(keys):
    with pytest.raises(RegistryError, match="needs the name"):
        signed_approval(SUBJECT, keys["ann"], approver=" ", at="now")
