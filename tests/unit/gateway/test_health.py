"""When an address is left alone, and how often one may ask again: by plain numbers."""

from __future__ import annotations

import pytest

from modelyard.gateway.config import Breaking
from modelyard.gateway.health import Breaker, RetryBudget


@pytest.fixture
def breaker() -> Breaker:
    settings = Breaking(failures=3, window_s=30.0, open_s=5.0, most_open_s=12.0)
    return Breaker(settings=settings)


def fail(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.begun()
        breaker.failed(now)


def test_it_opens_on_failures_and_is_tried_by_one(breaker: Breaker) -> None:
    fail(breaker, 0.0, 2)
    assert breaker.allows(0.0)
    fail(breaker, 0.0)
    assert not breaker.allows(4.9)
    assert breaker.returns_in(1.0) == 4.0
    assert breaker.allows(5.0)
    breaker.begun()
    assert not breaker.allows(5.0)
    breaker.succeeded(5.5)
    assert breaker.allows(5.5)
    assert breaker.returns_in(5.5) == 0.0


def test_each_failed_trial_doubles_the_time_up_to_the_most(breaker: Breaker) -> None:
    fail(breaker, 0.0, 3)
    fail(breaker, 5.0)
    assert breaker.returns_in(5.0) == 10.0
    fail(breaker, 15.0)
    assert breaker.returns_in(15.0) == 12.0


def test_requests_that_were_under_way_at_the_opening_do_not_lengthen_it(breaker: Breaker) -> None:
    for _ in range(50):
        breaker.begun()
    for _ in range(50):
        breaker.failed(0.0)
    assert breaker.returns_in(0.0) == 5.0


def test_a_trial_that_nobody_waits_for_tells_nothing(breaker: Breaker) -> None:
    fail(breaker, 0.0, 3)
    breaker.begun()
    breaker.given_up()
    assert breaker.allows(6.0)


def test_failures_among_more_answers_do_not_open_it(breaker: Breaker) -> None:
    for _ in range(20):
        fail(breaker, 0.0, 1)
        breaker.succeeded(0.0)
        breaker.succeeded(0.0)
    assert breaker.allows(0.0)
    fail(breaker, 0.0, 3)
    assert not breaker.allows(0.0)


def test_every_other_failure_opens_it(breaker: Breaker) -> None:
    for _ in range(3):
        assert breaker.allows(0.0)
        breaker.succeeded(0.0)
        fail(breaker, 0.0)
    assert not breaker.allows(0.0)


def test_old_failures_are_forgotten(breaker: Breaker) -> None:
    for now in (0.0, 31.0, 62.0, 93.0):
        breaker.succeeded(now)
        fail(breaker, now)
    assert breaker.allows(93.0)


def test_a_rest_is_kept_to_and_no_opening(breaker: Breaker) -> None:
    breaker.rest(7.0)
    breaker.rest(3.0)
    assert not breaker.allows(6.9)
    assert breaker.returns_in(1.0) == 6.0
    assert breaker.allows(7.0)


def test_retries_are_a_share_and_some_a_second() -> None:
    budget = RetryBudget(share=0.5, per_s=1.0, saved_s=3.0)
    assert [budget.withdraw(1.0) for _ in range(4)] == [True, True, True, False]
    assert budget.withdraw(2.0)
    assert not budget.withdraw(2.0)
    budget.deposit()
    budget.deposit()
    assert budget.withdraw(2.0)
    assert not budget.withdraw(2.5)


def test_without_a_budget_nothing_is_asked_again() -> None:
    budget = RetryBudget(share=0.0, per_s=0.0)
    budget.deposit()
    assert not any(budget.withdraw(now) for now in (1.0, 1000.0))
