"""A long random life of two aliases, held against a model of ten lines, and audited all the way."""

from __future__ import annotations

import random

import pytest

from modelyard.core.digests import digest_path
from modelyard.core.errors import RegistryError
from modelyard.registry.audit import audit
from modelyard.registry.rollback import Rollback, rollback

NAMES = "abc"


class Aliases:
    """What should happen: what stands for each alias, and which certificates it has used."""

    def __init__(self):
        self.stands = {"stage": [], "prod": []}
        self.used = {"stage": set(), "prod": set()}

    def served(self, alias):
        return self.stands[alias][-1] if self.stands[alias] else None

    def promote(self, alias, name, over, report):
        """Whether it is allowed; then it is done."""
        now = self.served(alias)
        allowed = (
            now != name
            and now in (None, over)
            and report not in self.used[alias]
            and (alias == "stage" or self.served("stage") == name)
        )
        if allowed:
            self.stands[alias].append(name)
            self.used[alias].add(report)
        return allowed

    def rollback(self, alias, name):
        """Whether it is allowed; then it is done."""
        below = self.stands[alias][:-1]
        if name not in below:
            return False
        self.stands[alias] = below[: len(below) - below[::-1].index(name)]
        return True


@pytest.mark.parametrize("seed", [1])
def test_a_random_life(yard, registry, promoted, certificate, policy, seed):
    policy(prod=0)
    chance, expected, reports, done = random.Random(seed), Aliases(), {}, 0
    for _ in range(60):
        alias, name = chance.choice(("stage", "prod")), chance.choice(NAMES)
        if chance.random() < 0.25:
            allowed = expected.rollback(alias, name)
            told = Rollback(alias=alias, actor="ann", reason="r", to=f"{name}@1")
            happened = _happens(lambda told=told: rollback(yard, registry, told))
        else:
            over = chance.choice(
                [each for each in (*NAMES, expected.served(alias)) if each not in (None, name)]
            )
            fresh = chance.random() < 0.5
            key = (name, over, len(reports) if fresh else 0)
            if key not in reports:
                reports[key] = certificate(name, over, seed=key[2])
            allowed = expected.promote(alias, name, over, reports[key])
            again = not allowed and _is_last(registry, alias, name, reports[key])
            happened = _happens(lambda: promoted(name, over, alias, evidence=reports[key]))  # noqa: B023
            assert not (again and not happened)
            happened = happened and not again
        assert happened == allowed
        done += happened
        now = {each: value.name for each, value in registry.aliases().items()}
        assert now == {each: stack[-1] for each, stack in expected.stands.items() if stack}
    assert len(registry.history()) == done > 10
    assert any(move.kind == "rollback" for move in registry.history())
    found = audit(yard, registry)
    assert (found.faults, found.open) == ((), ())


def _is_last(registry, alias, name, report):
    """Whether this very promotion is what the alias did last; then it is done already."""
    last = next(reversed(registry.history(alias)), None)
    return (
        last is not None
        and (last.kind, last.name) in (("promote", name), ("bootstrap", name))
        and last.evidence_digest == digest_path(report)
    )


def _happens(act):
    try:
        act()
    except RegistryError:
        return False
    return True
