"""Warm starts: what is taken from earlier studies, what a search does with it, and what it never does."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import optuna
import pytest
import yaml

from modelyard.core.errors import TuneError
from modelyard.core.plugins import load_plugin
from modelyard.testing.made_studies import MadeTrial, make_study
from modelyard.testing.searcher_contract import PLANE
from modelyard.testing.simulated_study import SimulatedStudy, Simulation
from modelyard.tuning.document import read_tune
from modelyard.tuning.earlier import Earlier, Sought, Source, WarmStart, gathered, read_earlier
from modelyard.tuning.library import space_of
from modelyard.tuning.preparing import prepare
from modelyard.tuning.reporting.report import sentences
from modelyard.tuning.searcher import Rungs, SearcherSettings
from modelyard.tuning.study import Study
from modelyard.tuning.trial import Constraint, Objective, Trial, TrialState
from modelyard.tuning.tuner import Tuner, sought
from modelyard.tuning.view import study_url, view_study

LOSS = Objective(metric="loss", direction="minimize")
LR, WIDTH = {"low": 1e-4, "high": 1.0, "default": 0.1}, {"low": 1, "high": 9, "default": 3}
SPACE = space_of({"lr": LR, "width": WIDTH})


def ended(value, **assignments):
    return MadeTrial(assignments=assignments, values=(value,))


def taken(folder, trials, *, space=SPACE, sought=Sought(space=SPACE, objectives=(LOSS,)), **how):  # noqa: B008
    """What is taken from one earlier study with these trials."""
    make_study(folder / "old", space, (LOSS,), trials)
    return gathered(WarmStart(sources=(Source(study=str(folder / "old")),), **how), sought)


# -- what is taken -------------------------------------------------------------------------------------


def test_complete_trials_are_taken_numbered_below_zero_and_the_best_comes_first(tmp_path):
    trials = [
        ended(3.0, lr=0.5),
        MadeTrial(assignments={"lr": 0.2}, state=TrialState.FAILED),
        ended(1.0, lr=0.3, width=5),
        MadeTrial(assignments={"lr": 0.2}, state=TrialState.PRUNED, curve={1: 0.1}),
        MadeTrial(assignments={"lr": 0.2}, state=TrialState.RUNNING),
    ]
    found = taken(tmp_path, trials)
    assert [(t.number, t.value, t.source) for t in found.trials] == [
        (-2, 3.0, "earlier"),
        (-1, 1.0, "earlier"),
    ]
    assert found.trials[0].point == {"lr": 0.5, "width": 3}
    assert found.first == (({"lr": 0.3, "width": 5}, "old/2"),)
    assert found.told == ("old: 2 trials",)


def test_more_is_better_where_it_was(tmp_path):
    gain = Objective(metric="gain", direction="maximize")
    make_study(tmp_path / "old", SPACE, (gain,), [ended(1.0, lr=0.2), ended(2.0, lr=0.3)])
    warm = WarmStart(sources=(Source(study=str(tmp_path / "old")),))
    assert gathered(warm, Sought(space=SPACE, objectives=(gain,))).first[0][1] == "old/1"


def test_what_lies_outside_the_space_is_left_out_and_told(tmp_path):
    wide = space_of({"lr": {**LR, "high": 10.0}, "width": WIDTH})
    found = taken(tmp_path, [ended(1.0, lr=5.0), ended(2.0, lr=0.5)], space=wide)
    assert [t.value for t in found.trials] == [2.0]
    assert "1 trials; left out: 1 (lr: 5 " in found.told[0]


def test_a_parameter_that_did_not_vary_was_at_its_default_and_one_that_is_gone_has_no_place(tmp_path):
    narrow = space_of({"lr": LR})
    assert taken(tmp_path, [ended(1.0, lr=0.5)], space=narrow).trials[0].point == {"lr": 0.5, "width": 3}
    sought = Sought(space=narrow, objectives=(LOSS,))
    with pytest.raises(TuneError, match=r"left out: 1 .*width"):
        taken(tmp_path / "b", [ended(1.0, lr=0.5, width=2)], sought=sought)


def test_only_the_largest_budget_says_what_a_configuration_is_worth(tmp_path):
    trials = [replace(ended(v, lr=lr), budget=b) for v, lr, b in ((0.1, 0.2, 3), (1.0, 0.3, 27))]
    assert [t.value for t in taken(tmp_path, trials).trials] == [1.0]


def test_values_of_which_the_constraints_are_not_known_are_not_taken(tmp_path):
    limit = (Constraint(metric="size", bound=1.0),)
    sought = Sought(space=SPACE, objectives=(LOSS,), constraints=limit)
    with pytest.raises(TuneError, match="other constraints were measured"):
        taken(tmp_path, [ended(1.0, lr=0.5)], sought=sought)
    found = taken(tmp_path, [], sought=sought, inform=False)
    assert found.trials == () and len(found.first) == 1


def test_what_is_tried_anyway_is_not_tried_twice(tmp_path):
    sought = Sought(space=SPACE, objectives=(LOSS,), given=(SPACE.default(),))
    trials = [ended(1.0), ended(2.0, lr=0.5), ended(2.5, lr=0.5), ended(3.0, lr=0.6)]
    found = taken(tmp_path, trials, sought=sought, first=2)
    assert [whose for _, whose in found.first] == ["old/1", "old/3"]
    with pytest.raises(TuneError, match="say first: 2"):
        taken(tmp_path / "b", trials, sought=sought, first=3)


def test_several_studies_take_turns(tmp_path):
    for name, values in (("a", (1.0, 2.0)), ("b", (30.0, 10.0))):
        made = [ended(v, lr=0.001 * v) for v in values]
        make_study(tmp_path / name, SPACE, (LOSS,), made)
    sources = tuple(Source(study=str(tmp_path / name)) for name in "ab")
    found = gathered(WarmStart(sources=sources, first=3), Sought(space=SPACE, objectives=(LOSS,)))
    assert [whose for _, whose in found.first] == ["a/0", "b/1", "a/1"]
    assert [t.number for t in found.trials] == [-4, -3, -2, -1]


def test_a_study_of_optunas_own_in_a_database(tmp_path):
    url = f"sqlite:///{tmp_path / 'theirs.db'}"
    theirs = optuna.create_study(storage=url, study_name="theirs", sampler=optuna.samplers.RandomSampler())
    theirs.optimize(lambda t: t.suggest_float("lr", 1e-3, 0.9) + t.suggest_int("width", 1, 4), n_trials=3)
    warm = WarmStart(sources=(Source(study="theirs", url=url),))
    found = gathered(warm, Sought(space=SPACE, objectives=(LOSS,)))
    assert [t.value for t in found.trials] == [t.value for t in theirs.trials]
    assert [dict(t.point) for t in found.trials] == [t.params for t in theirs.trials]
    other = Sought(space=SPACE, objectives=(Objective(metric="gain", direction="maximize"),))
    with pytest.raises(TuneError, match=r"it was to minimize the . ., this one is to maximize the last gain"):
        gathered(warm, other)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source(study="nowhere"), "there is no study here; give the name"),
        (Source(study="nowhere", url="sqlite:///nowhere.db"), "no database of a study here"),
        (Source(study="other", url="sqlite:///DIR/old/study.db"), "no study 'other' here; there are: old"),
    ],
)
def test_a_study_that_is_not_there_is_told_and_none_is_made(tmp_path, source, message):
    make_study(tmp_path / "old", SPACE, (LOSS,), [])
    if source.url:
        source = replace(source, url=source.url.replace("DIR", str(tmp_path)))
    with pytest.raises(TuneError, match=message):
        gathered(WarmStart(sources=(source,)), Sought(space=SPACE, objectives=(LOSS,)))
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_what_was_taken_is_stored_exactly(tmp_path):
    trials = [replace(ended(0.1 + 0.2, lr=1 / 3), budget=9, curve={3: 0.7, 9: 0.1 + 0.2}), ended(2.0, lr=0.7)]
    sought = Sought(space=SPACE, objectives=(LOSS,), curves=True)
    found = taken(tmp_path, [trials[0]], sought=sought)
    assert found.trials[0].curve == {3: 0.7, 9: 0.1 + 0.2}
    assert read_earlier(json.loads(json.dumps(found.record()))) == found
    assert found.record()["digest"] != taken(tmp_path / "b", [trials[1]]).record()["digest"]


# -- what algorithms do with it ------------------------------------------------------------------------

PROMOTING = ("asha", "hyperband", "hyperband_es", "bohb", "dehb", "pbt")
STOPPING = tuple(name for name in PROMOTING if name != "pbt")
ALGORITHMS = ("random", "tpe", "cmaes", "nsga2", *PROMOTING)
_AT = ({"x": -3.1, "y": 0.06}, {"x": 4.0, "y": 1e-3}, {"x": 9.0, "y": 0.9}, {"x": -2.8, "y": 0.04})


def hill(point):
    """Lowest far from the middle of the space."""
    return ((point["x"] + 3) / 5) ** 2 + (math.log10(point["y"] / 0.05) / 2) ** 2


def earlier_trials(count):
    points = [{"x": p["x"] + 1e-3 * i, "y": p["y"]} for i in range(count // 4) for p in _AT]
    return [
        Trial(
            number=i - count, point=p, source="earlier", state=TrialState.COMPLETE, values=(hill(p),),
            budget=27, curve={s: hill(p) + 1 - s / 27 for s in (1, 3, 9, 27)},
        )
        for i, p in enumerate(points)
    ]  # fmt: skip


class Informed:
    """A searcher that is told of earlier trials at each proposal, as the tuner does it."""

    def __init__(self, searcher, earlier):
        self._searcher, self._earlier = searcher, earlier

    def propose(self, trials, number):
        return self._searcher.propose([*self._earlier, *trials], number)

    def keeps(self, trials, number, step):
        return self._searcher.keeps(trials, number, step)


def made(algorithm, *, promote=True, **options):
    factory = load_plugin("modelyard.tuners", algorithm)
    rungs = Rungs(low=3 if algorithm == "pbt" else 1, high=27, promote=promote) if factory.rungs else None
    return factory(
        SearcherSettings(
            dimensions=PLANE, directions=("minimize",), seed=3, rungs=rungs, options=tuple(options.items())
        )
    )


@pytest.mark.parametrize(
    ("algorithm", "promote"), [(name, True) for name in ALGORITHMS] + [(name, False) for name in STOPPING]
)
def test_nothing_goes_on_from_earlier_trials_and_they_have_no_place_at_a_rung(algorithm, promote):
    study = SimulatedStudy(
        Informed(made(algorithm, promote=promote), earlier_trials(40)),
        Simulation(curve=lambda p, s: hill(p) + 1 - s / 27, steps=27, parallel=2, failing=0.2, seed=1),
    )
    trials = study.run(trials=40)
    assert len(trials) == 40
    assert all(trial.parent is None or trial.parent >= 0 for trial in trials)
    assert any(trial.parent is not None for trial in trials) is (promote and algorithm in PROMOTING)
    if algorithm in ("hyperband", "hyperband_es", "bohb"):  # the first bracket begins at its beginning
        first = [t.notes["hyperband"] for t in trials if t.parent is None][:27]
        assert first == [{"cycle": 0, "bracket": 3}] * 27


@pytest.mark.parametrize(
    ("algorithm", "options", "share"),
    [
        ("tpe", {}, 0.5), ("bohb", {"random": 0.0}, 0.5), ("cmaes", {}, 0.5),
        ("asha", {"sampler": "tpe"}, 0.5),
        ("nsga2", {}, 0.8),  # its children lie between good ones of two valleys too
    ],
)  # fmt: skip
def test_models_propose_nearer_to_the_best_from_the_first_trial_on(algorithm, options, share):
    """Of 20 proposals, each the first of its number, the median is better than that of the uninformed."""
    informed, plain = (
        sorted(
            hill(made(algorithm, promote=False, **options).propose(shown, number).point)
            for number in range(20)
        )[10]
        for shown in (earlier_trials(80), [])
    )
    assert informed < share * plain


# -- in a search ---------------------------------------------------------------------------------------

JOB = "import sys; print(f'step 1 loss: {abs(float(sys.argv[1]) - 0.25)}')"


@pytest.fixture
def tune(tmp_path, yard, open_local):
    """Runs one invocation over a study in this process."""
    (tmp_path / "job.py").write_text(JOB)

    def run(name, **changes):
        given = {
            "name": name, "command": "{python} job.py {x}", "metric": "loss", "algorithm": "tpe", "trials": 4,
            "space": {"x": {"low": 0, "high": 1.0, "default": 0.5}}, "poll": "0.02s", **changes,
        }  # fmt: skip
        path = tmp_path / "tune.yaml"
        path.write_text(yaml.safe_dump(given))
        search = prepare(read_tune(path), yard.root / "runs")
        backend = open_local(jobs_dir=search.run_dir / "jobs", slots=1)
        return Tuner(search, yard=yard, backend=backend).run()

    return run


@pytest.fixture
def old(yard):
    """A study that somebody made earlier; the best is at 0.3."""
    folder, space = yard.root / "runs" / "old", space_of({"x": {"low": 0, "high": 1.0}})
    make_study(folder, space, (LOSS,), [ended(abs(x - 0.25), x=x) for x in (0.9, 0.5, 0.3, 0.1)])
    study = Study(
        study_url(folder, None), "old", directions=("minimize",), dimensions=(), lock=folder / "study.lock"
    )
    study.remember("identity", {"objectives": [["loss", "minimize", "last"]]})
    study.close()
    return folder


def informed(yard, name):
    return [e.data for e in yard.journal.read() if e.kind == "study.informed" and e.run == name]


def test_an_earlier_study_informs_and_never_counts(tune, old, yard):
    new = tune("new", warm_start=["old"], start=[{"x": 0.9}])
    assert [t.number for t in new.trials] == [0, 1, 2, 3]
    assert [t.source for t in new.trials] == ["default", "start", "start", "tpe"]
    assert new.trials[2].point == {"x": 0.3} and new.trials[2].notes["earlier"] == "old/2"
    view = view_study(new.run_dir)
    assert view.earlier == ("old: 4 trials",) and view.record()["counts"]["COMPLETE"] == 4
    assert "had measured: old: 4 trials." in " ".join(sentences(view))
    assert [each["told"] for each in informed(yard, "new")] == [["old: 4 trials"]]


def test_what_was_taken_stays_whatever_becomes_of_the_earlier_study(tune, old, yard):
    """A search in pieces is the search in one, though the earlier study is gone by then."""
    given = {"warm_start": ["old"], "options": {"start": 1}}
    whole = tune("whole", trials=4, **given)
    tune("pieces", trials=2, **given)
    shutil.rmtree(old)
    pieces = tune("pieces", trials=4, **given)
    assert [t.point for t in pieces.trials] == [t.point for t in whole.trials]
    assert pieces.best.number == whole.best.number and len(informed(yard, "pieces")) == 1


def test_the_algorithm_is_told_of_them(tune, old, tmp_path, yard):
    new = tune("new", trials=3, warm_start=["old"], options={"start": 1})
    search = prepare(read_tune(tmp_path / "tune.yaml"), yard.root / "runs")
    shown = gathered(search.warm_start, sought(search)).trials
    told = search.searcher.propose([*shown, *new.trials[:2]], 2)
    assert told.point == new.trials[2].point != search.searcher.propose(new.trials[:2], 2).point


def test_another_warm_start_is_another_study(tune, old):
    tune("new", warm_start=["old"], trials=1)
    for other in ({}, {"warm_start": {"from": ["old"], "first": 0}}):
        with pytest.raises(TuneError, match="another warm_start"):
            tune("new", trials=1, **other)


def test_values_of_another_objective_are_refused_and_its_best_may_be_tried(tune, old, tmp_path):
    (tmp_path / "job.py").write_text(JOB.replace("loss", "gain"))
    given = {"metric": {"name": "gain", "direction": "maximize"}, "trials": 2}
    with pytest.raises(TuneError, match="minimize the last loss, this one is to maximize the last gain"):
        tune("new", warm_start=["old"], **given)
    new = tune("newer", warm_start={"from": ["old"], "inform": False}, **given)
    assert new.trials[1].notes == {"earlier": "old/2"}


def test_a_study_cannot_learn_from_itself(tune):
    with pytest.raises(TuneError, match="would learn from itself"):
        tune("one", warm_start=["one"])


def test_nothing_taken_is_nothing():
    assert Earlier() == read_earlier(Earlier().record())
