"""An optimiser with an adviser: who proposes which trial, what the adviser sees, what its failures cost."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace

import pytest
import yaml

from modelyard.core.errors import DocumentError, TuneError
from modelyard.core.faults import Faults, Section
from modelyard.core.plugins import load_plugin
from modelyard.runs.execution import Outcome
from modelyard.testing.openai_server import fake_server
from modelyard.testing.searcher_contract import PLANE, bowl
from modelyard.testing.simulated_study import SimulatedStudy, Simulation, best_value
from modelyard.tuning.document import read_tune
from modelyard.tuning.preparing import prepare
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.searchers.hybrid import HYBRID
from modelyard.tuning.trial import Trial, TrialState
from modelyard.tuning.tuner import Tuner

NOWHERE = "http://127.0.0.1:9/v1"  # nothing listens there


def settings(**options):
    section = Section({"model": "adder", **options}, faults=Faults(file="options"))
    read = HYBRID.options(section)
    section.close()
    section.faults.raise_if_any()
    return SearcherSettings(
        dimensions=PLANE, directions=("minimize",), seed=1, default={"x": 1.0, "y": 1e-2}, options=read
    )


def alone(name):
    return load_plugin("modelyard.tuners", name)(replace(settings(endpoint=NOWHERE), options=()))


def searched(searcher, trials=40):
    study = SimulatedStudy(searcher, Simulation(curve=lambda p, _: bowl(p), seed=4))
    return study.run(trials=trials)


@pytest.fixture
def serve(tmp_path):
    """Starts a server that answers by a script, or with weak advice."""
    with ExitStack() as stack:

        def start(*answers, name="one"):
            script = tmp_path / f"{name}.json"
            script.write_text(json.dumps(answers))
            options = ["--answers", str(script)] if answers else ["--weak-advice"]
            return stack.enter_context(fake_server(tmp_path / f"{name}.jsonl", *options))

        yield start


def advised(trials):
    return [trial for trial in trials if "advice" in trial.notes]


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.3, 11, 25), (1.0, 60, 60)])
def test_the_model_is_asked_on_a_share_of_the_trials(serve, share, low, high):
    """Of 60 trials 18 are expected at 0.3; 11 to 25 hold 96 % of all seeds, and this seed is fixed."""
    server = serve()
    trials = searched(HYBRID(settings(endpoint=server.endpoint, share=share)), 60)
    assert low <= len(advised(trials)) <= high
    assert {trial.source for trial in trials} <= {"tpe", "llm"}
    assert all(trial.source == "llm" for trial in advised(trials))


def test_without_a_share_it_is_the_optimiser():
    plain = searched(alone("tpe"))
    mine = searched(HYBRID(settings(endpoint=NOWHERE, share=0)))
    assert [trial.point for trial in mine] == [trial.point for trial in plain]


@pytest.mark.parametrize("optimiser", ["tpe", "cmaes"])
def test_the_model_sees_what_the_optimiser_would_try(serve, optimiser):
    server = serve({"text": {"values": {"x": 3.0, "y": 0.5}}})
    trials = searched(alone(optimiser), 20)
    searcher = HYBRID(settings(endpoint=server.endpoint, share=1, optimiser=optimiser))
    proposal = searcher.propose(trials, 20)
    assert (proposal.source, proposal.point) == ("llm", {"x": 3.0, "y": 0.5})
    told = json.loads(server.requests()[0]["body"]["messages"][1]["content"])
    own = alone(optimiser).propose(trials, 20).point
    assert told["optimiser"]["name"] == optimiser
    assert told["optimiser"]["proposes"] == pytest.approx(own, rel=1e-5)
    others = told["optimiser"]["might_have_proposed"]
    assert len({json.dumps(each) for each in [*others, told["optimiser"]["proposes"]]}) == 4
    assert optimiser not in proposal.notes  # CMA-ES does not take it for a draw of its own


def test_a_proposal_that_is_repeated_stays_the_optimisers(serve):
    trials = searched(alone("cmaes"), 20)
    own = alone("cmaes").propose(trials, 20)
    rounded = {name: float(f"{value:.6g}") for name, value in own.point.items()}
    server = serve({"text": {"values": rounded}})
    proposal = HYBRID(settings(endpoint=server.endpoint, share=1, optimiser="cmaes")).propose(trials, 20)
    assert (proposal.point, proposal.source) == (own.point, "cmaes")
    assert proposal.notes["cmaes"] == own.notes["cmaes"] and proposal.notes["advice"]["model"] == "adder"


def test_an_endpoint_that_never_answered_stops_the_search():
    with pytest.raises(TuneError, match=r"hybrid: the model gave no advice for trial \d+: ConnectError"):
        searched(HYBRID(settings(endpoint=NOWHERE)))


def test_a_model_whose_first_answers_are_all_no_advice_does_too(serve):
    server = serve({"text": "a larger lr"})
    study = SimulatedStudy(
        HYBRID(settings(endpoint=server.endpoint)), Simulation(curve=lambda p, _: bowl(p), seed=4)
    )
    with pytest.raises(TuneError, match="not one JSON object"):
        study.run(trials=40)
    assert [trial.source for trial in advised(study.trials)] == ["tpe (no advice)"] * 3
    assert len(server.requests()) == 8


def test_one_that_once_gave_advice_does_not_and_the_source_says_so(serve):
    server = serve({"text": {"values": {"x": 3.0, "y": 0.5}}}, {"text": "this model is retired"})
    trials = searched(HYBRID(settings(endpoint=server.endpoint)))
    sources = [trial.source for trial in advised(trials)]
    assert sources == ["llm", *["tpe (no advice)"] * (len(sources) - 1)] and len(sources) > 5
    assert "not one JSON object" in advised(trials)[-1].notes["advice"]["failed"]
    # what it tries instead is what the optimiser wants
    last = advised(trials)[-1].number
    assert alone("tpe").propose(trials[:last], last).point == trials[last].point


def test_a_search_that_is_to_stop_without_advice_does(serve):
    server = serve({"text": {"values": {"x": 3.0, "y": 0.5}}}, {"status": 503, "text": "overloaded"})
    with pytest.raises(TuneError, match="status 503"):
        searched(HYBRID(settings(endpoint=server.endpoint, fallback="none")))


def test_bad_advice_does_not_keep_the_optimiser_from_the_best(serve):
    """A model that always says the corner: with three trials in ten wasted, the search still comes near."""
    corners = [{"text": {"values": {"x": -5.0 + i / 50, "y": 0.99 - i / 100}}} for i in range(60)]
    server = serve(*corners)
    misled = searched(HYBRID(settings(endpoint=server.endpoint)), 80)
    assert sum(trial.source == "llm" for trial in misled) > 10
    assert best_value(misled) < best_value(searched(alone("random"), 80))


def test_tpe_takes_advised_trials_into_its_model_and_cmaes_waits_for_its_own():
    def proposed(optimiser, trials):
        searcher = HYBRID(settings(endpoint=NOWHERE, share=0, optimiser=optimiser))
        return [searcher.propose(trials, number).point for number in range(40, 60)]

    for optimiser in ("tpe", "cmaes"):
        own = searched(alone(optimiser), 15)
        points = [{"x": 1.0 + i / 2, "y": 1e-3 * 2 ** (i - 2)} for i in range(5)]
        led = [
            Trial(number=15 + i, point=each, source="llm", state=TrialState.COMPLETE, values=(bowl(each),))
            for i, each in enumerate(points)
        ]
        same = proposed(optimiser, own) == proposed(optimiser, [*own, *led])
        assert same == (optimiser == "cmaes")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"share": 1.5}, "share"), ({"share": -0.1}, "share"), ({"optimiser": "random"}, "optimiser"),
        ({"fallback": "tpe"}, "fallback"), ({"endpoint": "nowhere"}, "endpoint"), ({"advice": 1}, "advice"),
    ],
)  # fmt: skip
def test_an_option_that_is_wrong_is_told(options, word):
    with pytest.raises(DocumentError, match=word):
        settings(**{"endpoint": NOWHERE, **options})


def test_a_whole_study_tells_who_proposed_what(serve, tmp_path, yard, open_local):
    (tmp_path / "job.py").write_text("import sys; print('loss:', abs(float(sys.argv[1]) - 0.02))\n")
    server = serve()
    declared = {
        "name": "one", "command": "{python} job.py {lr}", "metric": "loss", "algorithm": "hybrid",
        "trials": 8, "space": {"lr": {"low": 1e-5, "high": 0.1}}, "poll": "0.02s", "parallel": 2,
        "options": {"endpoint": server.endpoint, "model": "adder", "share": 0.5},
    }  # fmt: skip
    path = tmp_path / "tune.yaml"
    path.write_text(yaml.safe_dump(declared))
    search = prepare(read_tune(path), yard.root / "runs")
    backend = open_local(jobs_dir=yard.root / "runs" / "one" / "jobs", slots=2)
    result = Tuner(search, yard=yard, backend=backend).run()
    assert result.outcome is Outcome.SUCCEEDED
    sources = [trial.source for trial in result.trials]
    assert sources[0] == "default" and set(sources[1:]) == {"tpe", "llm"}
    assert len(server.requests()) == sources.count("llm")
    assert len((yard.root / "runs/one/advice.jsonl").read_text().splitlines()) == sources.count("llm")


def test_what_may_be_changed_when_a_study_goes_on(tmp_path):
    def identity(**options):
        declared = {
            "command": "{python} job.py {lr}", "metric": "loss", "algorithm": "hybrid",
            "space": {"lr": {"low": 1e-5, "high": 0.1}},
            "options": {"endpoint": NOWHERE, "model": "adder", **options},
        }  # fmt: skip
        path = tmp_path / "tune.yaml"
        path.write_text(yaml.safe_dump(declared))
        return prepare(read_tune(path), tmp_path / "runs", {"MY_KEY": "sk-1"}).identity

    first = identity()
    same = (
        {"endpoint": "https://other/v1"}, {"model": "m"}, {"api_key_env": "MY_KEY"}, {"fallback": "none"},
        {"max_total_tokens": 5}, {"price_in": 1, "price_out": 1, "max_cost_usd": 9}, {"timeout_s": 5},
    )  # fmt: skip
    assert all(identity(**options) == first for options in same)
    assert all(identity(**options) != first for options in ({"share": 0.5}, {"optimiser": "cmaes"}))
