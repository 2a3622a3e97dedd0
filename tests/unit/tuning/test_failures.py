"""What failures mean: half the batch where memory was short, and an end where all fail alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.faults import Faults, Section
from modelyard.tuning.failures import OUT_OF_MEMORY, RETRY_OF, batch_parameters, triage, with_less
from modelyard.tuning.spaces.document import read_space
from modelyard.tuning.trial import Trial, TrialState


def space_of(**parameters):
    faults = Faults(file="f")
    space = read_space(Section(parameters, faults=faults))
    faults.raise_if_any()
    return space


LR = {"low": 0.1, "high": 1.0}
SPACE = space_of(lr=LR, batch_size={"low": 1, "high": 512, "default": 100})


def failed(number, *, why="exit status 1", cause="exit", **more):
    return Trial(
        **{"point": {}, "source": "x", **more}, number=number, state=TrialState.FAILED, why=why, cause=cause
    )


def short(number, space=SPACE, notes=(), **assignments):
    """A trial that ran out of memory."""
    point = space.point(assignments)
    return failed(number, cause=OUT_OF_MEMORY, point=point, notes=dict(notes))


def done(number):
    return Trial(number=number, point={}, source="x", state=TrialState.COMPLETE, values=(1.0,))


def tried(space, trials):
    proposal = with_less(space, trials)
    return None if proposal is None else space.assignments(proposal.point)


# -- triage --------------------------------------------------------------------------------------------


def test_the_first_that_all_fail_alike_stop_a_study_and_tell_why():
    found = triage([failed(n, why="exit status 1: no GPU") for n in (4, 5, 6)], first=3)
    assert found.trials == (4, 5, 6)
    assert str(found) == (
        "the first 3 trials all failed alike (exit): exit status 1: no GPU; mend the command or the space, "
        "then run the same command again"
    )


@pytest.mark.parametrize(
    "trials",
    [
        [failed(0), failed(1)],
        [failed(0), failed(1), done(2), failed(3)],
        [done(0), failed(1), failed(2), failed(3)],
        [failed(0), failed(1), failed(2, cause="timeout")],
        [failed(0), failed(1), failed(2, why="exit status 1: another")],
        [failed(0), failed(1), Trial(number=2, point={}, source="x")],
        [],
    ],
)
def test_anything_else_does_not(trials):
    assert triage(trials, first=3) is None


def test_numbers_paths_and_addresses_do_not_make_failures_different():
    whys = [f"exit status {n}: cannot read /data/{n}/x at 0x7f{n}: {n}.5 GiB" for n in (1, 2, 3)]
    assert triage([failed(n, why=why) for n, why in enumerate(whys)], first=3) is not None


def test_who_runs_does_not_count_and_nought_means_never():
    running = Trial(number=0, point={}, source="x")
    assert triage([running, failed(1), failed(2)], first=2).trials == (1, 2)
    assert triage([failed(n) for n in range(9)], first=0) is None


# -- less ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["batch_size", "train.batch_size", "BATCH", "bs", "per_device_train_batch_size", "micro_batch",
     "batchSize", "dataset.train_batch_size_per_gpu", "minibatch-size", "train_bs"],
)  # fmt: skip
def test_a_batch_is_known_by_its_name(name):
    assert batch_parameters(space_of(**{name: {"low": 1, "high": 8}})) == [name]


@pytest.mark.parametrize("name", ["lr", "num_batches", "batches", "absolute", "robs", "batching", "obsolete"])
def test_other_names_are_no_batch(name):
    assert batch_parameters(space_of(**{name: {"low": 1, "high": 8}})) == []


def test_half_the_batch_is_tried_once_with_all_else_as_it_was():
    trial = short(0, lr=0.3, batch_size=100)
    proposal = with_less(SPACE, [trial])
    assert SPACE.assignments(proposal.point) == {"lr": 0.3, "batch_size": 50}
    assert proposal.source == "retry" and proposal.notes == {RETRY_OF: 0}
    answer = Trial(number=1, point=proposal.point, source="retry", notes=proposal.notes)
    assert with_less(SPACE, [trial, answer]) is None


def test_other_failures_are_not_tried_with_less():
    other = failed(0, point=SPACE.point({}), cause="timeout")
    assert with_less(SPACE, [other, done(1)]) is None


def test_the_budget_the_parent_and_the_notes_go_along():
    trial = short(0, notes={"bracket": 2}.items(), batch_size=8)
    proposal = with_less(SPACE, [Trial(**{**fields(trial), "budget": 9, "parent": 3})])
    assert (proposal.budget, proposal.parent) == (9, 3)
    assert proposal.notes == {"bracket": 2, RETRY_OF: 0}


def fields(trial):
    return {name: getattr(trial, name) for name in type(trial).__dataclass_fields__}


def test_there_are_at_most_four_halvings_and_none_below_the_least():
    trials = [short(0, batch_size=512)]
    sizes = []
    while (proposal := with_less(SPACE, trials)) is not None:
        size = SPACE.assignments(proposal.point)["batch_size"]
        sizes.append(size)
        trials.append(short(len(trials), notes=proposal.notes.items(), batch_size=size))
    assert sizes == [256, 128, 64, 32]
    assert with_less(SPACE, [short(0, batch_size=1)]) is None


def test_a_batch_of_some_sizes_only_becomes_the_next_smaller_one():
    space = space_of(lr=LR, batch_size={"choices": [8, 24, 64]})
    assert tried(space, [short(0, space, batch_size=64)])["batch_size"] == 24
    assert tried(space, [short(0, space, batch_size=24)])["batch_size"] == 8
    assert tried(space, [short(0, space, batch_size=8)]) is None
    powers = space_of(lr=LR, bs={"low": 4, "high": 64, "power_of": 2})
    assert tried(powers, [short(0, powers, bs=64)])["bs"] == 32
    multiples = space_of(bs={"low": 8, "high": 64, "multiple_of": 8})
    assert tried(multiples, [short(0, multiples, bs=24)])["bs"] == 8


def test_without_a_batch_that_counts_nothing_is_tried():
    plain = space_of(lr=LR)
    assert with_less(plain, [short(0, plain)]) is None
    switch = space_of(batch={"choices": [True, False]})
    assert with_less(switch, [short(0, switch, batch=True)]) is None
    space = space_of(opt={"choices": ["a", "b"]}, batch_size={"low": 1, "high": 64, "when": {"opt": "b"}})
    assert with_less(space, [short(0, space, opt="a")]) is None


@given(st.integers(1, 512))
def test_what_is_tried_is_a_valid_smaller_point(size):
    trial = short(0, batch_size=size)
    proposal = with_less(SPACE, [trial])
    if size == 1:
        assert proposal is None
    else:
        assert SPACE.repair(proposal.point) == proposal.point
        assert SPACE.assignments(proposal.point)["batch_size"] == size // 2
