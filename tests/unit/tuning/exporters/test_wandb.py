"""Studies in W&B: files are read by their own format, with W&B's record types; online a server stands in.

The server answers what the real client asks. No real server of W&B takes part.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.unit.tuning.exporters.digits import LOSS, NEW, SIZE, end

from modelyard.core.errors import TuneError
from modelyard.testing.made_studies import MadeTrial
from modelyard.tuning.exporters import make_exporter, trial_key
from modelyard.tuning.exporters.wandb import WandbExporter

pytestmark = pytest.mark.skipif(find_spec("wandb") is None, reason="the extra wandb is not installed")

#: Says that nothing is missing.
WHOLE = {"modelyard/whole": True}
DEADLINE_S, LOOK_S = 30.0, 0.01
_BLOCK, _HEADER = 32768, struct.Struct("<IHB")


@pytest.fixture(scope="module", autouse=True)
def _service():
    """W&B's service ends with the tests of this file."""
    yield
    import wandb

    wandb.teardown()


@pytest.fixture
def there(tmp_path):
    """Exports into the folder of the test."""
    return There(tmp_path)


class There:
    def __init__(self, folder, **options):
        self.folder = folder
        self.exporter = WandbExporter(dir=str(folder), **options)
        self.export = self.exporter.export

    @property
    def runs(self):
        """What the files say, by the trial's number; two of one number are a fault."""
        files = sorted(self.folder.glob("wandb/offline-run-*/run-*.wandb"))
        runs = [read_run(file) for file in files]
        found = {run["config"]["modelyard"]["trial"]: run for run in runs}
        assert len(found) == len(runs)
        return found

    def files(self):
        """Every file with its bytes."""
        return {
            path: path.read_bytes() for path in self.folder.glob("wandb/offline-run-*/*") if path.is_file()
        }


def records_of(path):
    """The records of a `.wandb` file: after seven bytes LevelDB's log format, its checksums unmasked.

    W&B 0.31 has no reader in Python any more; the records are its own.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, b""
    assert data[:7] == b":W&B\xe1\xbe\x00"
    while place + _HEADER.size <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER.size:
            place += left
            continue
        checksum, length, kind = _HEADER.unpack_from(data, place)
        part = data[place + _HEADER.size : place + _HEADER.size + length]
        if len(part) < length:
            return  # being written
        assert zlib.crc32(part, zlib.crc32(bytes([kind]))) == checksum
        place, parts = place + _HEADER.size + length, parts + part
        if kind in (1, 4):  # a whole record, or its last part
            yield Record.FromString(parts)
            parts = b""


def read_run(path):
    """A run as its file has it, once W&B's own process has written the end."""
    begun = time.monotonic()
    while (run := read_now(path))["exit"] is None:
        assert time.monotonic() - begun < DEADLINE_S, path
        time.sleep(LOOK_S)
    return run


def read_now(path):
    run = {"history": [], "summary": {}, "config": {}, "path": path, "exit": None}
    for record in records_of(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run |= {"id": record.run.run_id, "group": record.run.run_group, "name": record.run.display_name,
                    "project": record.run.project, "tags": list(record.run.tags), "notes": record.run.notes,
                    "host": record.run.host}  # fmt: skip
            run["config"] |= items(record.run.config.update)
        elif kind == "history":
            run["history"].append((record.history.step.num, items(record.history.item)))
        elif kind == "summary":
            run["summary"] |= items(record.summary.update)
        elif kind == "exit":
            run["exit"] = record.exit.exit_code
    return run


def items(pairs):
    """Values by name, without W&B's own."""
    named = {(each.key or "/".join(each.nested_key)): json.loads(each.value_json) for each in pairs}
    return {name: value for name, value in named.items() if not name.startswith("_")}


def test_every_ended_trial_is_a_run_in_the_group_of_the_study(study, there):
    view = study()
    done = there.export(view)
    assert (done.added, done.known, done.running) == ((0, 1, 2, 4), (), (3,))
    assert done.place == str(there.folder / "wandb")
    runs = there.runs
    assert sorted(runs) == [0, 1, 2, 4]
    assert {(run["group"], run["project"]) for run in runs.values()} == {("digits", "modelyard")}
    assert {number: run["id"] for number, run in runs.items()} == {
        number: trial_key(view, view.trials[number]) for number in runs
    }
    assert runs[4]["name"] == "digits-4" and runs[2]["tags"] == ["PRUNED"]
    assert {number: run["exit"] for number, run in runs.items()} == {0: 0, 1: 1, 2: 0, 4: 0}


def test_the_config_has_the_parameters_and_what_the_trial_was(study, there):
    there.export(study())
    config = dict(there.runs[4]["config"])
    told = config.pop("modelyard")
    assert config == {"lr": 0.01, "layers[0].width": 8, "solver": "sgd"}
    assert told.pop("started_at") <= told.pop("ended_at")
    assert told == {
        "study": "digits", "trial": 4, "state": "COMPLETE", "source": "random", "job": "job-4", "budget": 27,
        "parent": 0,
    }  # fmt: skip
    failed = there.runs[1]
    assert failed["notes"] == failed["config"]["modelyard"]["why"] == "it broke"
    assert failed["config"]["modelyard"]["cause"] == "code"


def test_the_history_is_the_whole_curve_at_its_own_steps(study, there):
    there.export(study())
    assert there.runs[0]["history"] == [(1, {"loss": 2.0}), (3, {"loss": 0.5}), (4, {"loss": 0.75})]
    assert there.runs[2]["history"] == [(0, {"loss": 2.0}), (3, {"loss": 1.5})]


def test_the_summary_has_the_value_that_counts_and_only_of_complete_trials(study, there):
    there.export(study())
    assert {number: run["summary"] for number, run in there.runs.items()} == {
        0: {"objective/loss": 0.5, "acc": 0.75, **WHOLE}, 1: WHOLE, 2: WHOLE,
        4: {"objective/loss": 0.25, **WHOLE},
    }  # fmt: skip


def test_a_long_curve_is_whole(study, there):
    curve = {7 * step: 1.0 / (step + 1) for step in range(1500)}
    there.export(study([MadeTrial(values=(1.0, 2.0), curve=curve)], objectives=(LOSS, SIZE)))
    run = there.runs[0]
    assert run["path"].stat().st_size > 2 * _BLOCK
    assert {step: row["loss"] for step, row in run["history"]} == curve
    assert run["summary"] == {"objective/loss": 1.0, "objective/size": 2.0, **WHOLE}


def test_a_second_export_changes_no_file(study, there):
    view = study()
    there.export(view)
    before = there.files()
    done = there.export(view)
    assert (done.added, done.known, done.running) == ((), (0, 1, 2, 4), (3,))
    assert there.files() == before


def test_a_second_export_adds_what_is_new_and_nothing_else(study, there, tmp_path):
    there.export(study())
    before = there.files()
    end(tmp_path / "digits", 3)
    done = there.export(study([NEW]))
    assert (done.added, done.known, done.running) == ((3, 5), (0, 1, 2, 4), ())
    assert {path: data for path, data in there.files().items() if path in before} == before
    assert sorted(there.runs) == [0, 1, 2, 3, 4, 5] and there.runs[5]["history"] == [(4, {"loss": 0.125})]


def test_a_trial_that_was_half_written_is_written_anew(study, there):
    """A kill leaves a folder without the file that is written last."""
    view = study()
    there.export(view)
    half = there.runs[0]["path"]
    (half.parent / "modelyard.json").unlink()
    half.write_bytes(half.read_bytes()[:300])
    done = there.export(view)
    assert (done.added, done.known) == ((0,), (1, 2, 4))
    assert len(there.runs[0]["history"]) == 3


def test_a_trial_is_called_whole_when_its_file_is(study, there):
    """W&B's own process writes the last of a file after `finish`: what was logged last is there by then."""
    there.export(study([MadeTrial(values=(1.0,), curve={k: float(k) for k in range(9)})]))
    (path,) = there.folder.glob("wandb/offline-run-*/run-*.wandb")
    run = read_now(path)
    assert len(run["history"]) == 9 and run["summary"] == {"objective/loss": 1.0, **WHOLE}


def test_another_study_of_the_same_name_has_other_runs(study, there, tmp_path):
    there.export(study())
    (tmp_path / "digits").rename(tmp_path / "old")
    assert there.export(study([NEW])).added == (0,)
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 5


def test_of_the_machine_that_exports_nothing_is_told(study, there):
    there.export(study([NEW]))
    run = there.runs[0]
    assert run["host"] == ""
    assert [path.name for path in run["path"].parent.glob("files/**/*") if path.is_file()] == []


def test_it_writes_beside_a_run_that_is_being_logged(study, there, tmp_path):
    import wandb

    own = wandb.init(dir=str(tmp_path), mode="offline", id="own", settings={"silent": True, "console": "off"})
    there.export(study([NEW]))
    own.log({"x": 1.0}, step=1)
    own.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*-own/*.wandb")
    assert read_run(file)["history"] == [(1, {"x": 1.0})]


def test_a_mode_or_a_folder_that_is_not_there_is_refused(study, tmp_path):
    view = study([NEW])
    with pytest.raises(TuneError, match="--mode: 'later' is not offline or online; give one of them"):
        make_exporter("wandb", {"mode": "later"}).export(view)
    with pytest.raises(TuneError, match="none: is not a folder; make it, or give another --dir"):
        WandbExporter(dir=str(tmp_path / "none")).export(view)


def test_online_without_a_key_is_an_error_that_says_what_to_do(study, tmp_path):
    """In a process of its own, which knows no key and reaches no server."""
    study([NEW])
    program = (
        "import sys; from pathlib import Path\n"
        "from modelyard.tuning.exporters.wandb import WandbExporter\n"
        "from modelyard.tuning.view import view_study\n"
        "WandbExporter(mode='online', dir='.').export(view_study(Path('digits')))\n"
    )
    environment = {"HOME": str(tmp_path), "WANDB_BASE_URL": "http://127.0.0.1:9", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    told = r"TuneError: W&B: the study cannot be written \(.+\); export with --mode offline"
    assert re.search(told, ended.stderr, re.DOTALL), ended.stderr


def test_the_command_tells_where_and_how_many(call, tmp_path):
    options = ("--to", "wandb", "--project", "mine", "--dir", ".")
    made = call(*options, name="dig")
    place = Path("wandb").resolve()
    assert (made.exit_code, made.stdout) == (
        0, f"{place}: 4 trials added, 0 there already, 1 still running\n",
    ), made.exception  # fmt: skip
    assert {run["project"] for run in There(tmp_path).runs.values()} == {"mine"}
    told = json.loads(call(*options, "--json", name="dig").stdout)
    assert told == {
        "study": "digits", "to": "wandb", "place": str(place), "added": [], "known": [0, 1, 2, 4],
        "running": [3],
    }  # fmt: skip


class Answering(BaseHTTPRequestHandler):
    """As much of a W&B server as an export needs, as its client 0.31 asks it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        body = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
        if self.path.endswith("/file_stream"):
            self.stream(self.path.split("/")[-2], json.loads(body).get("files", {}))
        asked = json.loads(body) if self.path == "/graphql" else {}
        named = {"RunResumeStatus": self.found, "UpsertBucket": self.upserted, "CreateRunFiles": self.files}
        data = (
            named[asked["operationName"]](asked["variables"]) if asked.get("operationName") in named else {}
        )
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def stream(self, run, files):
        for name, chunk in files.items():
            kept = self.server.runs[run].setdefault(name, [])
            kept[chunk["offset"] :] = chunk["content"]

    def found(self, asked):
        run = self.server.runs.get(asked["name"])
        return {"model": {**PROJECT, "bucket": None if run is None else {
            **bucket(asked["name"], run), "summaryMetrics": run.get("wandb-summary.json", ["{}"])[-1],
            "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "tags": [], "notes": None,
            "historyTail": json.dumps(run["wandb-history.jsonl"][-1:]), "wandbConfig": '{"t": 1}',
        }}}  # fmt: skip

    def upserted(self, asked):
        new = asked["name"] not in self.server.runs
        run = self.server.runs.setdefault(asked["name"], {"wandb-history.jsonl": []})
        run |= {name: value for name, value in asked.items() if value is not None}
        return {
            "upsertBucket": {"bucket": {**bucket(asked["name"], run), "project": PROJECT}, "inserted": new}
        }

    def files(self, asked):
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": []}}

    def log_message(self, *arguments):
        """Nothing is told of requests."""


PROJECT = {"id": "p", "name": "modelyard", "entity": {"id": "e", "name": "me"}}


def bucket(name, run):
    lines = len(run["wandb-history.jsonl"])
    return {"id": name, "name": name, "displayName": run.get("displayName"), "description": None,
            "config": run["config"], "sweepName": None, "historyLineCount": lines}  # fmt: skip


@pytest.fixture
def server():
    served = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    served.runs = {}
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.mark.usefixtures("call")
def test_online_a_run_is_there_once_and_one_half_written_is_taken_up(tmp_path, server):
    environment = {
        **os.environ, "HOME": str(tmp_path), "WANDB_API_KEY": "k" * 40,
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
    }  # fmt: skip

    def export():
        command = [sys.executable, "-m", "modelyard.cli.main", "tune", "export", "digits", "--to", "wandb"]
        ended = subprocess.run(
            [*command, "--mode", "online", "--json"], cwd=tmp_path, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def curves():
        lines = {
            name: [json.loads(line) for line in run["wandb-history.jsonl"]] for name, run in runs.items()
        }
        return {name: [(row["_step"], row["loss"]) for row in rows] for name, rows in lines.items()}

    runs = server.runs
    told = export()
    assert (told["added"], told["known"], told["running"]) == ([0, 1, 2, 4], [], [3])
    assert told["place"] == f"http://127.0.0.1:{server.server_port}/me/modelyard"
    first = next(name for name, run in runs.items() if run["displayName"] == "digits-0")
    whole = curves()
    assert len(whole) == 4 and whole[first] == [(1, 2.0), (3, 0.5), (4, 0.75)]
    assert json.loads(runs[first]["wandb-summary.json"][-1])["objective/loss"] == 0.5
    told = export()
    assert (told["added"], told["known"]) == ([], [0, 1, 2, 4]) and curves() == whole

    runs[first]["wandb-summary.json"] = ["{}"]
    del runs[first]["wandb-history.jsonl"][1:]
    told = export()
    assert (told["added"], told["known"]) == ([0], [1, 2, 4]) and curves() == whole
