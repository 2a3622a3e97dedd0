"""The report of a study: each sentence follows from the trials, and the page needs nothing but itself."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from modelyard.testing.made_studies import MadeTrial, made_view, make_study
from modelyard.tuning.reporting.report import render_report, sentences
from modelyard.tuning.spaces.domains import Choices
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Parameter, Space
from modelyard.tuning.trial import Objective, TrialState
from modelyard.tuning.view import view_study

LOSS = Objective(metric="val_loss", direction="minimize")
SPEED = Objective(metric="speed", direction="maximize")
SPACE = Space([
    Parameter(name="lr", domain=Range(low=1e-5, high=1e-1, log=True), default=1e-3),
    Parameter(name="opt", domain=Choices(options=("adam", "sgd"))),
])  # fmt: skip


def done(value, *more, **about):
    return MadeTrial(values=(value, *more), **about)


def failed(cause, why="it broke"):
    return MadeTrial(state=TrialState.FAILED, cause=cause, why=why)


def told(trials, objectives=(LOSS,), **more):
    return " ".join(sentences(made_view("made", SPACE, objectives, trials, **more)))


def by_lr(n, seed=0, sign=1.0):
    """Trials whose value is their learning rate's logarithm, and nothing else."""
    chance = random.Random(seed)
    powers = [chance.uniform(-5, -1) for _ in range(n)]
    return [
        done(sign * (power + 6), assignments={"lr": 10**power, "opt": chance.choice(("adam", "sgd"))})
        for power in powers
    ]


# -- the gain ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "default", "best", "words"),
    [
        (LOSS, 0.4, 0.3, "is 0.3, against 0.4 of the default configuration (trial 0): 0.1 lower, or 25 %."),
        (SPEED, 2.0, 3.0, "is 3, against 2 of the default configuration (trial 0): 1 higher, or 50 %."),
        (LOSS, 0.0, -1.0, "is −1, against 0 of the default configuration (trial 0): 1 lower."),
        (LOSS, 1.0, 0.001, "0.999 lower, or over 99 %."),
        (LOSS, 0.3, 0.4, "is 0.3. The search found nothing better than the default configuration."),
    ],
)  # fmt: skip
def test_the_best_is_told_beside_the_default(objective, default, best, words):
    assert words in told([done(default, source="default"), done(best)], objectives=(objective,))


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ([done(1.0)], "was not tried. How much the search gained over it is not known."),
        ([replace(failed("code"), source="default"), done(1.0)], "configuration (trial 0) failed."),
        ([MadeTrial(state=TrialState.PRUNED, source="default"), done(1.0)], "(trial 0) was stopped early."),
        ([MadeTrial(state=TrialState.RUNNING, source="default"), done(1.0)], "(trial 0) has not ended."),
        ([done(1.0, budget=1, source="default"), done(0.5, budget=9)], "a value only with a budget of 1."),
        ([], "No trial has a value of val_loss that counts, so nothing can be said of it."),
    ],
)  # fmt: skip
def test_a_gain_that_is_not_known_is_not_told(trials, words):
    assert words in told(trials)
    assert "lower" not in told(trials)


def test_without_other_seeds_the_best_is_said_to_owe_something_to_chance():
    trials = [done(1.0, source="default"), done(0.5), done(0.7)]
    assert "As the best of 3 values it owes something to chance" in told(trials)
    assert "chance" not in told(trials[:1])


def test_other_seeds_tell_the_gain_and_whether_it_may_be_none():
    kept = {"seeds": [1, 2], "best": [0.25, 0.35], "default": [0.4, 0.4]}
    trials = [done(0.4, source="default"), done(0.2)]
    sure = told(trials, confirmation={**kept, "gain": {"mean": 0.1, "low": 0.02, "high": 0.18}})
    assert (
        "Measured again with 2 other seeds, the best configuration has 0.3 in the mean, the default 0.4: "
        "a gain of 0.1 (95 % interval 0.02 to 0.18)." in sure
    )
    assert "chance" not in sure
    unsure = told(trials, confirmation={**kept, "gain": {"mean": 0.1, "low": -0.02, "high": 0.2}})
    assert "a gain of 0.1 (95 % interval −0.02 to 0.2), which may be none." in unsure


@pytest.mark.parametrize(
    "kept", [{"best": [0.3]}, {"seeds": [1], "best": [0.3], "default": [], "gain": None}]
)
def test_a_confirmation_without_a_default_tells_what_there_is(kept):
    words = told([done(0.4)], confirmation=kept)
    assert "Measured again with 1 other seed, the best configuration has 0.3 in the mean." in words


def test_one_other_seed_and_failed_trainings_are_told_as_what_they_are():
    trials = [done(0.4, source="default"), done(0.2)]
    single = {"trial": 1, "wanted": 3, "seeds": [1], "best": [0.3], "default": [0.4]}
    words = told(trials, confirmation={**single, "gain": {"mean": 0.1, "low": None, "high": None}})
    assert "a gain of 0.1, of which one seed cannot tell how much is chance." in words
    lost = {"trial": 1, "wanted": 3, "seeds": [], "best": [], "default": [], "gain": None}
    assert "was to be measured again with other seeds, and no training gave a value." in told(
        trials, confirmation=lost
    )


def test_a_confirmation_of_an_earlier_best_says_so():
    kept = {"trial": 1, "seeds": [1, 2], "best": [0.3, 0.3], "default": [0.4, 0.4]}
    trials = [done(0.4, source="default"), done(0.2), done(0.1)]
    assert "other seeds, trial 1, the best at that time, has 0.3 in the mean" in told(
        trials, confirmation=kept
    )
    assert "the best configuration has 0.3" in told(trials[:2], confirmation=kept)


# -- what matters, what failed, what was saved ---------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "sign", "half"), [(LOSS, 1.0, "lower half of its range (1e−05 to 0.001)"),
                                    (SPEED, 1.0, "upper half of its range (0.001 to 0.1)"),
                                    (SPEED, -1.0, "lower half of its range (1e−05 to 0.001)")],
)  # fmt: skip
def test_the_most_important_parameter_is_told_with_its_better_half(objective, sign, half):
    words = told(by_lr(30, sign=sign), objectives=(objective,))
    assert re.search(
        r"By an estimate, what matters most is lr \((9\d|100) %\), opt \((under )?\d %\)\.", words
    )
    assert f"lr: the {half} was better: " in words
    assert "of two trials the one from there was better in 100 %." in words
    assert "opt: no option was clearly better." in words


def test_stopped_trials_are_told_beside_the_medians():
    trials = by_lr(20) + [
        MadeTrial(state=TrialState.PRUNED, curve={1: 9.0}, assignments={"lr": 0.05}) for _ in range(4)
    ]
    assert ", 4 of them given up early, a median of " in told(trials)


def test_of_few_trials_importance_is_not_told():
    words = told(by_lr(7))
    assert "Too few trials are complete (7) to say which parameters matter." in words
    assert "By an estimate" not in words


def test_failures_are_counted_by_cause():
    trials = [done(1.0), failed("out_of_memory"), failed("code"), failed("out_of_memory")]
    assert "3 of 4 trials failed: 2 out_of_memory, 1 code. A failed trial counts as no value." in told(trials)
    assert "failed" not in told([done(1.0, source="default")])


def test_what_stopping_saved_is_told():
    whole = dict.fromkeys(range(1, 28), 1.0)
    view = made_view("made", SPACE, (LOSS,), [
        done(1.0, curve=whole), MadeTrial(state=TrialState.PRUNED, curve={1: 2.0, 3: 1.5}),
        MadeTrial(state=TrialState.PRUNED, curve={1: 2.0, 9: 1.5}),
    ])  # fmt: skip
    begun = "2024-01-01T00:00:00+00:00"
    ended = [f"2024-01-01T00:00:{s:02d}+00:00" for s in (54, 6, 18)]
    trials = [replace(t, started_at=begun, ended_at=e) for t, e in zip(view.trials, ended, strict=True)]
    assert (
        "2 trials were stopped early, at step 6 of 27 in the median. That saved 42 steps, about 84 s of "
        "training at the pace of whole trials." in sentences(replace(view, trials=tuple(trials)))
    )


def test_the_pareto_front_is_told():
    trials = [done(0.5, 5.0), done(0.3, 3.0), done(0.4, 2.0)]
    words = told(trials, objectives=(LOSS, SPEED))
    assert "Trial 1 is best by the first objective" in words
    assert "2 of 3 trials are on the Pareto front: 0, 1." in words


# -- the page ------------------------------------------------------------------------------------------


VOID = ("meta", "link", "path", "use", "rect")


def elsewhere(attrs):
    """What an element points to that is not in the page."""
    found = [value for name, value in attrs if name in ("src", "href", "xlink:href")]
    return [value for value in found if not value.startswith(("#", "data:"))]


class Reader(HTMLParser):
    """Tables by their captions, headings, and whatever points elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.tables, self.titles, self.links = [], {}, [], []
        self._rows, self._text = [], ""

    def handle_starttag(self, tag, attrs):
        self.links += elsewhere(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th", "caption", "h2"):
            self._text = ""

    def handle_startendtag(self, tag, attrs):
        self.links += elsewhere(attrs)

    def handle_data(self, data):
        self._text += data

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag == "caption":
            self.tables[self._text] = self._rows = []
        elif tag == "h2":
            self.titles.append(self._text)
        elif tag in ("td", "th"):
            self._rows[-1].append(self._text)


def read(html):
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a study in storage with trials of every kind."""
    run_dir = tmp_path_factory.mktemp("yard") / "digits <&>"
    trials = by_lr(12)
    mixed = [
        done(3.0, source="default", curve={1: 4.0, 2: 3.0}), *trials[:6], failed("code", "a <script> & more"),
        MadeTrial(state=TrialState.PRUNED, curve={1: 9.0}, why="stopped at step 1"), *trials[6:],
        MadeTrial(state=TrialState.RUNNING),
    ]  # fmt: skip
    make_study(run_dir, SPACE, [LOSS], mixed)
    view = view_study(run_dir)
    return view, render_report(view)


def test_the_page_needs_no_other_file_and_is_well_formed(page):
    reader = read(page[1])
    assert reader.links == []
    assert reader.titles == ["What was learnt", "How it went", "What matters", "All trials", "Failures"]
    assert "<script> &" not in page[1] and "a &lt;script&gt; &amp; more" in page[1]
    assert page[1].count("<svg") == 5


def test_the_page_ranks_all_trials(page):
    view, html = page
    head, *rows = read(html).tables["All trials by rank; marked is the best"]
    assert head == ["rank", "trial", "state", "val_loss", "step", "seconds", "source", "lr", "opt",
                    "why it has no value"]  # fmt: skip
    assert len(rows) == len(view.trials) == 16
    complete = [row for row in rows if row[2] == "complete"]
    assert [row[0] for row in complete] == [str(n) for n in range(1, 14)]
    values = [float(row[3]) for row in complete]
    assert values == sorted(values)
    assert [row[2] for row in rows[13:]] == ["stopped", "running", "failed"]
    assert {row[0] for row in rows[13:]} == {"–"}
    assert rows[15][-1] == "a <script> & more" and float(rows[13][3]) == 9.0
    told = {int(row[1]): float(row[7]) for row in rows}
    assert told == pytest.approx({t.trial.number: t.assignments["lr"] for t in view.trials}, rel=5e-3)


def test_the_page_shows_the_best_beside_the_default(page):
    view, html = page
    rows = read(html).tables[
        f"The best configuration, trial {view.best.trial.number}; marked is what differs from the default"
    ]
    best = view.best.assignments
    assert rows[1:] == [["lr", f"{best['lr']:.6g}", "0.001"], ["opt", best["opt"], "adam"]]
    assert html.count('<tr class="strong">') == 1 + sum((best["lr"] != 1e-3, best["opt"] != "adam"))


def test_the_page_lists_failures_by_cause(page):
    rows = read(page[1]).tables["Failed trials by cause"]
    assert rows[1:] == [["code", "1", "7", "a <script> & more"]]


@pytest.mark.parametrize("trials", [[], [failed("code")], [MadeTrial(state=TrialState.RUNNING)], [done(1.0)]])
def test_a_page_is_made_of_any_study(trials):
    read(render_report(made_view("made", SPACE, (LOSS,), trials)))


def test_columns_of_many_parameters_are_left_out_and_told():
    wide = Space([Parameter(name=f"p{k}", domain=Range(low=0, high=1)) for k in range(20)])
    html = render_report(made_view("wide", wide, (LOSS,), [done(1.0), done(2.0)]))
    assert "8 more parameters: `modelyard tune export wide --out trials.csv`." in html
    assert len(read(html).tables["All trials by rank; marked is the best"][0]) == 8 + 12
