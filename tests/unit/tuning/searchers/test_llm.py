"""Search by asking a model, against a real server that answers by a script: what it says and breaks."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
import yaml

from modelyard.core.errors import DocumentError, TuneError
from modelyard.core.faults import Faults, Section
from modelyard.runs.execution import Outcome
from modelyard.testing.openai_server import fake_server
from modelyard.tuning.advice.log import AdviceLog
from modelyard.tuning.document import read_tune
from modelyard.tuning.preparing import prepare
from modelyard.tuning.searcher import Host, SearcherSettings
from modelyard.tuning.searchers.llm import LLM
from modelyard.tuning.spaces.document import read_space
from modelyard.tuning.trial import Trial, TrialState
from modelyard.tuning.tuner import Tuner

KEY = "sk-SECRET-0123456789"
NOWHERE = "http://127.0.0.1:9/v1"  # nothing listens there


def space():
    faults = Faults(file="space")
    made = read_space(
        Section({"lr": {"low": 1e-5, "high": 0.1}, "solver": {"choices": ["adam", "sgd"]}}, faults=faults)
    )
    faults.raise_if_any()
    return made


def advice(lr, solver="adam", **more):
    return {"values": {"lr": lr, "solver": solver}, "why": "because", **more}


def said(lr, solver="adam", **more):
    """An entry of a script."""
    return {"text": advice(lr, solver, **more)}


@pytest.fixture
def serve(tmp_path):
    """Starts a server that answers by a script."""
    with ExitStack() as stack:

        def start(*answers, options=(), name="one"):
            script = tmp_path / f"{name}.json"
            script.write_text(json.dumps(answers))
            log = tmp_path / f"{name}.jsonl"
            return stack.enter_context(fake_server(log, "--answers", str(script), *options))

        yield start


@pytest.fixture
def make(tmp_path):
    """A searcher of a run in the test's folder; each is as another process would make it."""

    def build(endpoint, *, environment=None, given=0, folder="run", **options):
        made = space()
        host = Host(
            folder=tmp_path / folder, environment=environment or {}, space=made, metrics=("val_loss",),
            given=given,
        )  # fmt: skip
        section = Section({"endpoint": endpoint, "model": "adder", **options}, faults=Faults(file="options"))
        read = LLM.options(section)
        section.close()
        section.faults.raise_if_any()
        return LLM(
            SearcherSettings(
                dimensions=made.dimensions, directions=("minimize",), seed=3, default=made.default(),
                options=read, host=host,
            )
        )  # fmt: skip

    return build


@pytest.fixture
def log(tmp_path):
    return lambda folder="run": AdviceLog(tmp_path / folder).calls()


def trial(number, lr, solver="adam", **fields):
    plain = {"source": "llm", "state": TrialState.COMPLETE, "values": (lr,)}
    return Trial(number=number, point=space().point({"lr": lr, "solver": solver}), **{**plain, **fields})


TRIALS = [trial(0, 1e-3, source="default"), trial(1, 1e-2)]


def sent(server, which=-1):
    return server.requests()[which]["body"]


# -- advice --------------------------------------------------------------------------------------------


def test_a_trial_is_what_the_model_says_and_every_call_is_recorded(serve, make, log):
    server = serve({"text": advice(0.05, "sgd"), "usage": {"prompt_tokens": 300, "completion_tokens": 20}})
    searcher = make(server.endpoint, price_in=1.0, price_out=10.0, temperature=0, max_tokens=100)
    proposal = searcher.propose(TRIALS, 2)
    assert space().assignments(proposal.point) == {"lr": 0.05, "solver": "sgd"}
    (call,) = log()
    assert (proposal.source, proposal.notes["advice"]["model"]) == ("llm", "adder")
    assert proposal.notes["advice"]["conversation"] == call.key
    assert (call.number, call.turn, call.outcome, call.why) == (2, 0, "taken", "")
    assert json.loads(call.answer) == advice(0.05, "sgd") and call.prompt.startswith("sha256:")
    assert (call.prompt_tokens, call.completion_tokens, call.estimated) == (300, 20, False)
    assert call.cost_usd == pytest.approx(0.0005) and call.latency_s > 0 and abs(call.at - time.time()) < 600
    body = sent(server)
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("adder", 0, 100)
    told = json.loads(body["messages"][1]["content"])
    assert told["wanted"]["metric"] == "val_loss" and [each["trial"] for each in told["best"]] == [0, 1]
    assert searcher.keeps(TRIALS, 1, 1)


def test_what_was_answered_is_not_asked_again_in_any_process(serve, make, log):
    server = serve(said(0.05), said(0.02), said(0.03))
    first = make(server.endpoint).propose(TRIALS, 2)
    assert make(server.endpoint).propose(TRIALS, 2) == first == make(NOWHERE).propose(TRIALS, 2)
    assert len(server.requests()) == 1
    more = [*TRIALS, trial(2, 0.05)]
    assert make(server.endpoint).propose(more, 3).point["lr"] == 0.02
    assert make(server.endpoint).propose(TRIALS, 3).point["lr"] == 0.03  # another number, another question
    assert [call.number for call in log()] == [2, 3, 3]


def test_a_running_trials_reports_change_nothing(serve, make):
    server = serve(said(0.05), said(0.02))
    running = trial(2, 0.03, state=TrialState.RUNNING, values=None)
    first = make(server.endpoint).propose([*TRIALS, running], 3)
    later = replace(running, curve={1: 0.5, 2: 0.25})
    assert make(server.endpoint).propose([*TRIALS, later], 3) == first and len(server.requests()) == 1


def test_a_refused_answer_is_told_back_once(serve, make, log, tmp_path):
    server = serve(said(7.0), said(0.05))
    assert make(server.endpoint).propose(TRIALS, 2).point["lr"] == 0.05
    assert [(call.turn, call.outcome) for call in log()] == [(0, "refused"), (1, "taken")]
    assert log()[0].key == log()[1].key and log()[0].prompt != log()[1].prompt
    messages = sent(server)["messages"]
    assert [each["role"] for each in messages] == ["system", "user", "assistant", "user"]
    assert json.loads(messages[-1]["content"])["refused"] == ["lr: 7 is not from 1e-05 to 0.1"]
    # killed between the two, it goes on with the second
    lines = (tmp_path / "run/advice.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run/advice.jsonl").write_text(lines[0])
    assert make(server.endpoint).propose(TRIALS, 2).point["lr"] == 0.05
    assert len(server.requests()) == 3


BAD = [
    ("I would try a smaller lr.", "not one JSON object"), ("", "empty answer"), ("[1, 2]", "not of the form"),
    (said(float("nan")), "NaN"), (said(0.5), "lr: 0.5 is not from"), (said("fast"), "lr: 'fast'"),
    (said(0.01), "has been tried as trial 1"), ("x" * 300_000, "300000 characters"),
    (said(0.05, "lion"), "solver"),
    ({"raw": "<html>502</html>"}, "no answer but <html>"), ({"raw": '{"choices": []}'}, "without choices"),
    ({"raw": '{"choices": [{"message": {"content": 7}}]}'}, "not as the interface has it"),
    ({"status": 404, "text": "no such model"}, "answers 404"), ({"status": 401, "text": "no"}, "answers 401"),
    ({"status": 500, "text": "oops"}, "status 500: "),
    ({"raw": "x" * (1 << 21)}, "more than 1048576 bytes"),
    ({"raw": ""}, "no answer but"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "why"), BAD, ids=[why for _, why in BAD])
def test_a_failure_stops_the_search_or_the_named_optimiser_takes_the_trial(serve, make, log, answer, why):
    server = serve(answer)
    with pytest.raises(TuneError) as caught:
        make(server.endpoint).propose(TRIALS, 2)
    words = str(caught.value)
    assert words.startswith("llm: the model gave no advice for trial 2: ") and why in words
    assert "run the same command again" in words and "advice.jsonl" in words
    assert log() and log()[-1].outcome in ("failed", "refused") and why in log()[-1].why
    proposal = make(server.endpoint, fallback="tpe", folder="other").propose(TRIALS, 2)
    alone = make(NOWHERE, fallback="tpe", folder="third").propose(TRIALS, 2)
    assert proposal.source == alone.source == "tpe (no advice)" and proposal.point == alone.point
    assert why in proposal.notes["advice"]["failed"]


@pytest.mark.parametrize("slow", [{"delay_s": 30}, {"drip_s": 30}], ids=["silent", "dripping"])
def test_a_slow_server_is_not_waited_for(serve, make, log, slow):
    server = serve({**slow, **said(0.05)})
    begun = time.monotonic()
    with pytest.raises(TuneError, match="Timeout"):
        make(server.endpoint, timeout_s=1, max_tokens=200).propose(TRIALS, 2)
    assert time.monotonic() - begun < 15 and len(server.requests()) == 1  # asked once: it may be billed
    (call,) = log()
    assert call.estimated and call.completion_tokens == 200 and call.prompt_tokens > 100


def test_a_dead_endpoint_is_told(make):
    with pytest.raises(TuneError, match=r"ConnectError.*mend the options or the endpoint"):
        make(NOWHERE).propose(TRIALS, 2)


def test_after_a_failure_the_same_command_asks_anew(serve, make, log):
    server = serve({"status": 404}, said(0.05))
    for endpoint in (NOWHERE, server.endpoint):
        with pytest.raises(TuneError):
            make(endpoint).propose(TRIALS, 2)
    assert make(server.endpoint).propose(TRIALS, 2).point["lr"] == 0.05
    assert [call.outcome for call in log()] == ["failed", "failed", "taken"]
    assert len({call.key for call in log()}) == 3  # so that no server takes one for the other
    assert make(NOWHERE).propose(TRIALS, 2).point["lr"] == 0.05


def test_where_there_is_a_fallback_a_failure_is_an_answer_too(serve, make):
    server = serve({"status": 500}, {"status": 500}, said(0.05))
    first = make(server.endpoint, fallback="tpe").propose(TRIALS, 2)
    assert make(server.endpoint, fallback="tpe").propose(TRIALS, 2) == first
    assert first.source == "tpe (no advice)" and len(server.requests()) == 2
    assert make(server.endpoint, fallback="tpe").propose(TRIALS, 3).source == "llm"


def test_a_busy_server_is_asked_once_more(serve, make, log):
    server = serve({"status": 429, "text": "slow down"}, said(0.05))
    assert make(server.endpoint).propose(TRIALS, 2).point["lr"] == 0.05
    assert len(server.requests()) == 2 and [call.outcome for call in log()] == ["taken"]


# -- secrets -------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_written_nowhere(serve, make, tmp_path):
    server = serve(
        said(9.0, note=KEY), {"status": 401, "text": f"Incorrect key: {KEY}"}, options=["--api-key", KEY]
    )
    environment = {"MY_KEY": f" {KEY}\n", "OTHER": "sk-OTHER"}
    searcher = make(server.endpoint, environment=environment, api_key_env="MY_KEY")
    with pytest.raises(TuneError) as caught:
        searcher.propose(
            [*TRIALS, trial(2, 2e-3, state=TrialState.FAILED, values=None, why=KEY, cause=KEY)], 3
        )
    assert KEY not in str(caught.value) and "***" in str(caught.value)
    assert [each["headers"]["Authorization"] for each in server.requests()] == [f"Bearer {KEY}"] * 2
    for path in (tmp_path / "run").rglob("*"):
        assert KEY not in path.read_text()
    assert KEY not in json.dumps([each["body"] for each in server.requests()])
    assert KEY not in repr(searcher._settings)


def test_a_key_that_is_missing_is_told_at_once(make, tmp_path):
    for environment, word in (({}, "has no MY_KEY"), ({"MY_KEY": "ä"}, "no header")):
        with pytest.raises(TuneError, match=word):
            make(NOWHERE, environment=environment, api_key_env="MY_KEY")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"endpoint": "ftp://x"}, "endpoint"), ({"endpoint": "http://u:p@x/v1"}, "password"),
        ({"model": 3}, "model"),
        ({"api_key_env": "sk-1234"}, "api_key_env"), ({"temperature": 3}, "temperature"),
        ({"timeout_s": 0}, "timeout_s"), ({"timeout_s": 600}, "timeout_s"),
        ({"max_cost_usd": 1}, "price_in"),
        ({"fallback": "random"}, "fallback"), ({"max_tokens": 0}, "max_tokens"), ({"share": 0.3}, "share"),
        ({"structured": "yes"}, "structured"),
    ],
)  # fmt: skip
def test_an_option_that_is_wrong_is_told(make, options, word):
    with pytest.raises(DocumentError, match=word) as caught:
        make(options.get("endpoint", NOWHERE), **{k: v for k, v in options.items() if k != "endpoint"})
    assert "sk-1234" not in str(caught.value)


# -- caps ----------------------------------------------------------------------------------------------


def test_the_caps_hold_over_all_processes(serve, make, log):
    usage = {"prompt_tokens": 400, "completion_tokens": 100}
    server = serve(*({**said(lr), "usage": usage} for lr in (0.05, 0.02, 0.03, 0.04, 0.06, 0.07)))
    options = {"price_in": 1.0, "price_out": 1.0, "max_cost_usd": 0.0025, "max_tokens": 100}
    trials = list(TRIALS)
    with pytest.raises(TuneError, match=r"max_cost_usd is 0.0025: 0.00\d+ USD are spent"):
        for number in range(2, 9):
            proposal = make(server.endpoint, **options).propose(trials, number)
            trials.append(trial(number, proposal.point["lr"]))
    asked = len(server.requests())
    assert 1 <= asked == len(log()) <= 5 and sum(call.cost_usd for call in log()) <= 0.0025
    with pytest.raises(TuneError, match="max_cost_usd"):
        make(server.endpoint, **options).propose(trials, len(trials))
    assert len(server.requests()) == asked
    told = make(server.endpoint, **options, fallback="tpe").propose(trials, len(trials))
    assert told.source == "tpe (no advice)" and "max_cost_usd" in told.notes["advice"]["failed"]
    # a higher cap is another word of the same user
    more = make(server.endpoint, **{**options, "max_cost_usd": 1}).propose(trials, len(trials))
    assert more.source == "llm"


def test_a_server_that_does_not_count_is_counted_high(serve, make, log):
    server = serve({**said(0.05), "usage": None})
    with pytest.raises(TuneError, match="max_total_tokens is 100: 0 are spent"):
        make(server.endpoint, max_total_tokens=100).propose(TRIALS, 2)
    make(server.endpoint).propose(TRIALS, 2)
    (call,) = log()
    sent_chars = sum(len(each["content"]) for each in sent(server)["messages"])
    assert call.estimated and call.prompt_tokens == -(-sent_chars // 3) and call.cost_usd is None
    assert call.completion_tokens == -(-len(call.answer) // 3)


def test_a_server_can_be_held_to_the_schema(serve, make):
    server = serve(said(0.05))
    make(server.endpoint, structured=True).propose(TRIALS, 2)
    told = sent(server)["response_format"]["json_schema"]["schema"]["properties"]["values"]
    assert told["properties"]["solver"] == {"enum": ["adam", "sgd"]}
    make(server.endpoint, folder="other").propose(TRIALS, 2)
    assert "response_format" not in sent(server)


# -- whole searches ------------------------------------------------------------------------------------


@pytest.fixture
def tune(tmp_path, yard, open_local):
    """Runs one invocation over a study whose command costs nothing."""

    def run(endpoint, algorithm="llm", trials=4, start=(), **options):
        (tmp_path / "job.py").write_text("import sys; print('loss:', abs(float(sys.argv[1]) - 0.02))\n")
        declared = {
            "name": "one", "command": "{python} job.py {lr}", "metric": "loss", "algorithm": algorithm,
            "space": {"lr": {"low": 1e-5, "high": 0.1}}, "trials": trials, "poll": "0.02s",
            "start": list(start),
            "options": {"endpoint": endpoint, "model": "adder", **options},
        }  # fmt: skip
        path = tmp_path / "tune.yaml"
        path.write_text(yaml.safe_dump(declared))
        backend = open_local(jobs_dir=yard.root / "runs" / "one" / "jobs", slots=1)
        return Tuner(prepare(read_tune(path), yard.root / "runs"), yard=yard, backend=backend).run()

    return run


def test_a_search_is_stopped_by_a_dead_endpoint_and_goes_on_when_it_is_mended(tune, serve, yard):
    with pytest.raises(TuneError, match="trial 2"):
        tune(NOWHERE, start=[{"lr": 0.05}])
    server = serve({"text": {"values": {"lr": 0.03}}}, {"text": {"values": {"lr": 0.021}}})
    result = tune(server.endpoint, start=[{"lr": 0.05}])  # another endpoint is no other study
    assert result.outcome is Outcome.SUCCEEDED and result.best.point["lr"] == 0.021
    assert [each.source for each in result.trials] == ["default", "start", "llm", "llm"]
    assert [each.number for each in result.trials if each.state is TrialState.COMPLETE] == [0, 1, 2, 3]
    assert len(server.requests()) == 2  # neither the default nor a start is asked for
    calls = AdviceLog(yard.root / "runs" / "one").calls()
    assert [(call.number, call.outcome) for call in calls] == [(2, "failed"), (2, "taken"), (3, "taken")]


def test_what_was_done_without_advice_says_so_in_the_study(tune):
    result = tune(NOWHERE, fallback="tpe", trials=3)
    assert [each.source for each in result.trials] == ["default", "tpe (no advice)", "tpe (no advice)"]
    assert "ConnectError" in result.trials[1].notes["advice"]["failed"]


def test_what_runs_when_the_endpoint_dies_is_adopted_and_not_run_again(tmp_path, yard, open_local, serve):
    """Trial 0 has ended and trial 1 runs on when trial 2 cannot be proposed."""
    (tmp_path / "job.py").write_text(
        "import sys, time\nlr = float(sys.argv[1])\nopen('starts.log', 'a').write(f'{lr}\\n')\n"
        "time.sleep(2 if lr == 0.05 else 0)\nprint('loss:', lr)\n"
    )

    def run(endpoint):
        declared = {
            "name": "one", "command": "{python} job.py {lr}", "metric": "loss", "algorithm": "llm",
            "trials": 3, "parallel": 2, "poll": "0.02s",
            "space": {"lr": {"low": 1e-5, "high": 0.1, "default": 0.01}},
            "start": [{"lr": 0.05}], "options": {"endpoint": endpoint, "model": "adder"},
        }  # fmt: skip
        path = tmp_path / "tune.yaml"
        path.write_text(yaml.safe_dump(declared))
        backend = open_local(jobs_dir=yard.root / "runs" / "one" / "jobs", slots=2)
        return Tuner(prepare(read_tune(path), yard.root / "runs"), yard=yard, backend=backend).run()

    with pytest.raises(TuneError, match="trial 2"):
        run(NOWHERE)
    result = run(serve({"text": {"values": {"lr": 0.03}}}).endpoint)
    assert [trial.value for trial in result.trials] == [0.01, 0.05, 0.03]
    assert sorted((tmp_path / "starts.log").read_text().split()) == ["0.01", "0.03", "0.05"]
