"""Pictures of studies in real storage: every trial is where it belongs, and what cannot be drawn is told."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import count
from xml.etree import ElementTree

import numpy as np
import pytest

from modelyard.core.errors import TuneError
from modelyard.reports.charts import MUTED, PALETTE, to_svg
from modelyard.testing.made_studies import MadeTrial, made_view, make_study
from modelyard.tuning.reporting.pictures import KINDS, check_picture, leading, picture, why_not, write_picture
from modelyard.tuning.spaces.domains import Choices
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Condition, Parameter, Space
from modelyard.tuning.trial import Objective, TrialState
from modelyard.tuning.view import view_study

LOSS = Objective(metric="val_loss", direction="minimize")
SPEED = Objective(metric="speed", direction="maximize")
SPACE = Space([
    Parameter(name="train.optim.lr", domain=Range(low=1e-5, high=1e-1, log=True)),
    Parameter(name="train.optim.name", domain=Choices(options=("adam", "sgd"))),
    Parameter(name="train.optim.momentum", domain=Range(low=0, high=0.9),
              when=(Condition(parameter="train.optim.name", values=("sgd",)),)),
    Parameter(name="model.layers", domain=Range(low=1, high=4, integer=True)),
])  # fmt: skip
FAILED = MadeTrial(state=TrialState.FAILED, cause="code", why="it broke", curve={1: 3.0, 2: 2.5})
STOPPED = MadeTrial(state=TrialState.PRUNED, curve={1: 2.0, 3: 1.5}, budget=9)


def complete(value, number, *more):
    sgd = number % 2 == 1
    own = {"train.optim.lr": 10 ** (-1 - number % 5), "model.layers": 1 + number % 4}
    own |= {"train.optim.name": "sgd", "train.optim.momentum": 0.5} if sgd else {}
    curve = {1: value + 1, 3: value + 0.5, 9: value}
    return MadeTrial(values=(value, *more), assignments=own, curve=curve, budget=9)


def mixed(*more):
    values = [0.5, 0.7, 0.4, 0.6, 0.3, 0.8, 0.55, 0.45, 0.35]
    trials = [complete(value, number, *more) for number, value in enumerate(values)]
    return [replace(trials[0], source="default"), *trials[1:4], FAILED, STOPPED, *trials[4:]]


@pytest.fixture
def study(tmp_path):
    numbers = count()

    def make(trials, objectives=(LOSS,)):
        run_dir = tmp_path / f"study-{next(numbers)}"
        make_study(run_dir, SPACE, objectives, trials)
        return view_study(run_dir)

    return make


def words(figure):
    root = ElementTree.fromstring(to_svg(figure))
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def drawn(figure, colour, marker=None):
    """Points of the lines of a colour in the first panel, as (x, y)."""
    return [
        (float(x), float(y))
        for line in figure.axes[0].lines
        if line.get_color() == colour and marker in (None, line.get_marker())
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def test_every_kind_is_drawn_of_a_study_in_storage(study, tmp_path):
    view = study(mixed(1.0), objectives=(LOSS, SPEED))
    for kind in KINDS:
        assert why_not(view, kind) == ""
        write_picture(picture(view, kind), tmp_path / f"{kind}.png")
        write_picture(picture(view, kind), tmp_path / f"{kind}.svg")
        assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"{kind}.svg").read_text().startswith("<svg")


def test_equal_studies_give_equal_pictures():
    one, two = (made_view("a", SPACE, (LOSS,), mixed()) for _ in range(2))
    for kind in KINDS[:-1]:
        assert to_svg(picture(one, kind)) == to_svg(picture(two, kind))


# -- history -------------------------------------------------------------------------------------------


def test_the_history_has_all_trials_and_failures_below_all_values(study):
    view = study(mixed())
    figure = picture(view, "history")
    assert len(drawn(figure, PALETTE[0])) == 9
    ((number, height),) = drawn(figure, PALETTE[1], "x")
    assert number == 4 and height < 0.3
    assert [x for x, _ in drawn(figure, MUTED, "x")] == [5]
    assert {"failed", "stopped, its last value", "best so far", "complete", "default", "best: 0.3"} <= set(
        words(figure)
    )


@pytest.mark.parametrize(("objective", "steps"), [(LOSS, [0.5, 0.4, 0.3]), (SPEED, [0.5, 0.7, 0.8])])
def test_the_best_so_far_goes_one_way_and_ends_at_the_best(objective, steps):
    figure = picture(made_view("a", SPACE, (objective,), mixed()), "history")
    stair = drawn(figure, PALETTE[2])
    heights = [y for _, y in stair]
    assert list(dict.fromkeys(heights)) == steps
    assert stair[-1][0] == 10  # it goes on to the last trial


def test_neither_stopped_nor_failed_trials_are_ever_the_best_so_far():
    better = [replace(STOPPED, curve={1: 0.01}), replace(FAILED, curve={1: 0.001})]
    figure = picture(made_view("a", SPACE, (LOSS,), [*mixed(), *better]), "history")
    assert min(y for _, y in drawn(figure, PALETTE[2])) == 0.3


def test_a_value_far_from_all_others_is_drawn_at_the_edge_and_told():
    trials = [*mixed(), MadeTrial(values=(900.0,), budget=9), MadeTrial(values=(-0.1,), budget=9)]
    figure = picture(made_view("a", SPACE, (LOSS,), trials), "history")
    assert "val_loss (less is better); 1 trial beyond the scale drawn at its end" in words(figure)
    assert max(y for _, y in drawn(figure, PALETTE[0])) < 2
    up = picture(
        made_view("a", SPACE, (SPEED,), [*mixed(), MadeTrial(values=(-900.0,), budget=9)]), "history"
    )
    assert min(y for _, y in drawn(up, PALETTE[0])) > -2


def test_values_of_several_sizes_are_drawn_by_their_ratios():
    trials = [MadeTrial(values=(10.0**-k,)) for k in range(5)] + [FAILED]
    figure = picture(made_view("a", SPACE, (LOSS,), trials), "history")
    assert figure.axes[0].get_yscale() == "log"
    ((_, height),) = drawn(figure, PALETTE[1], "x")
    assert 0 < height < 1e-4


def test_trials_of_a_smaller_budget_stand_apart():
    trials = [MadeTrial(values=(0.1,), budget=1), MadeTrial(values=(0.5,), budget=9)]
    figure = picture(made_view("a", SPACE, (LOSS,), trials), "history")
    assert drawn(figure, PALETTE[5]) == [(0.0, 0.1)]
    assert drawn(figure, PALETTE[0]) == [(1.0, 0.5)]


# -- curves --------------------------------------------------------------------------------------------


def test_curves_show_each_trial_once_and_where_one_was_stopped():
    view = made_view("a", SPACE, (LOSS,), mixed())
    figure = picture(view, "curves")
    assert {"complete", "stopped", "failed", "best", "default"} <= set(words(figure))
    lines = [line for line in figure.axes[0].lines if line.get_linestyle() != "None"]
    assert len(lines) == len(view.trials)
    assert drawn(figure, MUTED, "x") == [(3.0, 1.5)]
    assert drawn(figure, PALETTE[1], "x") == [(2.0, 2.5)]
    assert drawn(figure, PALETTE[2]) == [(1.0, 1.3), (3.0, 0.8), (9.0, 0.3)]


def test_of_very_many_curves_the_last_are_drawn_and_the_best_always():
    trials = [complete(0.1, 0), *(complete(1.0 + k / 1000, k) for k in range(300))]
    figure = picture(made_view("a", SPACE, (LOSS,), trials), "curves")
    assert len(figure.axes[0].lines) == 201
    assert drawn(figure, PALETTE[2])[-1] == (9.0, 0.1)


# -- by parameter --------------------------------------------------------------------------------------


def test_parallel_coordinates_set_off_the_best_and_the_default():
    figure = picture(made_view("a", SPACE, (LOSS,), mixed()), "parallel")
    told = words(figure)
    assert {"best", "default", "best fifth", "other complete trials", "val_loss", "not in use"} <= set(told)
    assert {"optim.lr", "optim.name", "momentum", "layers", "adam", "sgd"} <= set(told)


def test_parallel_coordinates_have_ratios_where_the_axis_has():
    trials = [MadeTrial(values=(float(k),), assignments={"train.optim.lr": 10.0**-k}) for k in range(1, 6)]
    view = made_view("a", SPACE, (LOSS,), trials)
    place = [factor.name for factor in leading(view, 9)].index("train.optim.lr")
    figure = picture(view, "parallel")
    strands = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_xdata()) == 5]
    heights = sorted({round(float(heights[place]), 6) for heights in strands})
    assert heights == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])


def test_of_very_many_trials_some_strands_are_drawn_and_told():
    trials = [complete(1.0 + k, k) for k in range(500)]
    figure = picture(made_view("a", SPACE, (LOSS,), trials), "parallel")
    assert "other complete trials, 1 of 3 drawn" in words(figure)
    assert sum(len(line.get_xdata()) == 5 for line in figure.axes[0].lines) < 210


def test_importance_says_that_it_is_an_estimate_and_of_what():
    told = words(picture(made_view("a", SPACE, (LOSS,), mixed()), "importance"))
    assert any("estimated" in word and "PED-ANOVA, 9 complete trials" in word for word in told)


def test_slices_show_a_parameter_only_where_it_counted_and_stopped_trials_at_the_bad_end():
    view = made_view("a", SPACE, (LOSS,), mixed())
    figure = picture(view, "slices")
    names = [axes.get_xlabel() for axes in figure.axes]
    assert sorted(names) == sorted(each.name for each in leading(view, 9))

    def shown(name, colours):
        lines = figure.axes[names.index(name)].lines
        return np.concatenate([line.get_ydata() for line in lines if line.get_color() in colours])

    trials = (PALETTE[0], PALETTE[5])
    assert (len(shown("train.optim.lr", trials)), len(shown("train.optim.momentum", trials))) == (9, 4)
    assert list(shown("model.layers", (MUTED,))) == [0.8]
    assert figure.axes[names.index("train.optim.lr")].get_xscale() == "log"


# -- several objectives --------------------------------------------------------------------------------


def test_the_pareto_front_is_drawn_apart(study):
    trials = [MadeTrial(values=pair) for pair in ((0.5, 5.0), (0.3, 3.0), (0.4, 2.0), (0.6, 4.0))]
    figure = picture(
        study([replace(trials[0], source="default"), *trials[1:]], objectives=(LOSS, SPEED)), "pareto"
    )
    assert drawn(figure, PALETTE[2]) == [(0.3, 3.0), (0.5, 5.0)]
    assert drawn(figure, MUTED) == [(0.4, 2.0), (0.6, 4.0)]
    assert {"trial 0", "trial 1", "default", "speed (more is better)"} <= set(words(figure))


def test_three_objectives_are_drawn_two_by_two():
    third = Objective(metric="size", direction="minimize")
    trials = [MadeTrial(values=(0.1 * k, 1.0 * k, 9.0 - k)) for k in range(1, 6)]
    assert len(picture(made_view("a", SPACE, (LOSS, SPEED, third), trials), "pareto").axes) == 3


# -- what cannot be drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trials", "kind", "why"),
    [
        ([], "history", "no trial has ended with a value"),
        ([MadeTrial(state=TrialState.RUNNING)], "parallel", "no trial has ended with a value"),
        ([MadeTrial(values=(1.0,))], "slices", "one complete trial has nothing beside it"),
        ([MadeTrial(values=(1.0,), curve={1: 1.0})], "curves", "values at more than one step"),
        ([complete(1.0 + k, k) for k in range(7)], "importance", "it needs 8 complete trials, and has 7"),
        ([complete(1.0, k) for k in range(9)], "importance", "its complete trials are all alike"),
        (mixed(), "pareto", "it has one objective; a Pareto front needs two or more"),
    ],
)
def test_what_cannot_be_drawn_is_told(trials, kind, why):
    view = made_view("narrow", SPACE, (LOSS,), trials)
    with pytest.raises(TuneError, match=why) as refused:
        picture(view, kind)
    assert str(refused.value).startswith(f"narrow: {kind} cannot be drawn: ")


def test_a_study_whose_trials_have_all_failed_has_a_history():
    assert "failed" in words(picture(made_view("a", SPACE, (LOSS,), [FAILED, FAILED]), "history"))


def test_a_space_of_one_point_has_no_slices():
    fixed = Space([Parameter(name="a", domain=Range(low=1, high=1))])
    view = made_view("a", fixed, (LOSS,), [MadeTrial(values=(1.0,)), MadeTrial(values=(2.0,))])
    assert why_not(view, "slices") == why_not(view, "parallel") == "its space has nothing that can vary"


def test_a_picture_that_cannot_be_made_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    with pytest.raises(TuneError, match=r"does not end in \.png or \.svg; give such a path"):
        check_picture(tmp_path / "out.pdf")
    with pytest.raises(TuneError, match="is not a folder; make it"):
        check_picture(tmp_path / "nowhere" / "out.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    with pytest.raises(TuneError, match=r"without matplotlib; install .* 'modelyard\[report\]'"):
        check_picture(tmp_path / "out.svg")
