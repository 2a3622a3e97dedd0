"""Certification: verdicts on recorded answers, what is kept, what is refused, what goes on."""

from __future__ import annotations

import json

import pytest

from modelyard.core.digests import canonical_json, digest_path
from modelyard.core.errors import DocumentError, EngineError, EvidenceError, SignatureError
from modelyard.core.files import write_json
from modelyard.core.signing import trusted_keys, verify_record
from modelyard.evaluation.interview import Surroundings
from modelyard.evidence.certify import Provenance, certify
from modelyard.evidence.packs import read_pack
from modelyard.runs.yard import open_yard
from modelyard.testing.openai_server import fake_server

YES, NO = "yes", "no"
#: The fields of a report, as everybody who reads one relies on them.
FIELDS = {
    "schema", "id", "created_at", "run_id", "prompt_pack", "baseline", "candidate", "decoding", "judge",
    "design", "items_asked", "counts", "effect", "p_value", "mcnemar_p", "e_value", "critical",
    "pairwise_losses", "aggregate", "power", "looks", "look", "verdict", "reasons", "raw_outputs",
    "raw_outputs_digest", "code_digest", "secondary", "signature",
}  # fmt: skip


def answers(count, *wrong):
    """`yes` to all but some."""
    return [NO if i in wrong else YES for i in range(count)]


def lines(done):
    return [json.loads(line) for line in (done.folder / "answers.jsonl").read_text().splitlines()]


def kinds(yard):
    return [entry.kind for entry in yard.journal.read()]


def test_a_better_candidate_passes_and_the_report_is_whole(yard, pack, recorded, certified):
    path = pack(40, {0: {"critical": True}, 1: {"cluster": "c", "weight": 2.0}, 2: {"cluster": "c"}})
    done = certified(path, recorded("base", answers(40, *range(10, 22))), recorded("cand", answers(40, 39)))
    report = done.report
    assert set(report) == FIELDS and report["schema"] == "modelyard.paired_eval_report/1"
    assert report["verdict"] == "pass" and report["id"] == done.id == done.folder.name
    counts = report["counts"]
    assert (counts["n11"], counts["n10"], counts["n01"], counts["n00"]) == (27, 1, 12, 0)
    assert report["pairwise_losses"] == ["q039"] and report["items_asked"] == 40
    assert report["critical"]["passed"] == report["critical"]["n"] == 1
    pack_told = report["prompt_pack"]
    assert (pack_told["n"], pack_told["n_critical"], pack_told["clusters"]) == (40, 1, 39)
    assert pack_told["digest"] == read_pack(path).digest == read_pack(done.folder / "pack.jsonl").digest
    assert pack_told["snapshot_digest"] == digest_path(done.folder / "pack.jsonl")
    assert report["raw_outputs_digest"] == digest_path(done.folder / report["raw_outputs"])
    assert report["look"] == {"split_looks": 1, "retired_at": 20}
    assert report["design"]["method"] == report["effect"]["method"] == "cluster_robust"


def test_the_report_is_signed_by_the_yard_and_on_record(yard, pack, recorded, certified):
    done = certified(pack(9), recorded("base", answers(9)), recorded("cand", answers(9, 1)))
    stored = json.loads((done.folder / "paired_eval_report.json").read_text())
    assert stored == done.report
    assert verify_record(stored, trusted_keys(yard.keys_dir / "trusted"))
    assert kinds(yard) == ["set.opened", "certificate.issued"]
    *_, issued = yard.journal.read()
    assert issued.run == done.id and issued.data == {
        "id": done.id,
        "verdict": "inconclusive",
        "report": str(done.folder / "paired_eval_report.json"),
        "report_digest": digest_path(done.folder / "paired_eval_report.json"),
        "candidate": stored["candidate"]["digest"],
        "baseline": stored["baseline"]["digest"],
        "run_id": None,
        "pack": stored["prompt_pack"]["digest"],
    }


def test_the_same_call_gives_the_report_that_there_is(yard, pack, recorded, certified):
    told = (pack(9), recorded("base", answers(9)), recorded("cand", answers(9, 1)))
    first, again = certified(*told), certified(*told, told_of=lambda *_: pytest.fail("asked again"))
    assert (first.before, again.before) == (False, True)
    assert again.report == first.report and again.report_digest == first.report_digest
    assert kinds(yard) == ["set.opened", "certificate.issued"]


def test_a_worse_candidate_fails_and_an_equal_one_is_not_proven(pack, recorded, certified):
    path, base = pack(40), recorded("base", answers(40))
    assert certified(path, base, recorded("worse", answers(40, *range(12)))).report["verdict"] == "fail"
    equal = certified(path, base, recorded("equal", answers(40, 3)))
    assert equal.report["verdict"] == "inconclusive" and equal.report["reasons"]


def test_a_margin_that_was_declared_is_held_against_the_interval(pack, recorded, certified):
    path, base = pack(100), recorded("base", answers(100, 0, 1, 2))
    told = (path, base, recorded("cand", answers(100, 1, 2, 3)))
    wide = certified(*told, alternative="non_inferiority", margin=0.05)
    narrow = certified(*told, alternative="non_inferiority", margin=0.001)
    assert (wide.report["verdict"], narrow.report["verdict"]) == ("pass", "inconclusive")
    assert wide.id != narrow.id and narrow.report["look"]["split_looks"] == 2


def test_no_answer_is_a_failure_of_its_model(pack, recorded, certified):
    """Were lost answers dropped, the candidate would win all 12 items that both answered apart."""
    lost = [None if i < 20 else YES for i in range(40)]
    base = recorded("base", answers(40, *range(28, 40)))
    done = certified(pack(40), base, recorded("cand", lost))
    assert done.report["verdict"] != "pass"
    counts = done.report["counts"]
    assert (counts["n10"], counts["n01"], counts["missing_cand"], counts["missing_base"]) == (20, 12, 20, 0)
    gone = [line for line in lines(done) if line["error"]]
    assert len(gone) == 20 and all(
        line["text"] is None and line["score"] == 0.0 and line["error"] == "lost" for line in gone
    )


def test_the_answers_are_all_there_as_they_came(pack, recorded, certified):
    done = certified(pack(10), recorded("b", answers(10), 2), recorded("c", answers(10, 4), 2), samples=2)
    told = lines(done)
    assert [line["asked"] for line in told] == list(range(1, 41))
    assert {(line["item"], line["side"], line["sample"]) for line in told} == {
        (f"q{i:03}", side, sample)
        for i in range(10)
        for side in ("baseline", "candidate")
        for sample in (0, 1)
    }
    assert {line["item"] for line in told if line["score"] == 0} == {"q004"}
    raw = (done.folder / "answers.jsonl").read_bytes().splitlines()
    assert all(canonical_json(json.loads(line)) == line for line in raw)


def test_a_sequential_comparison_ends_when_it_is_shown(pack, recorded, certified):
    path, base = pack(99), recorded("base", answers(99, *range(80)))
    done = certified(path, base, recorded("cand", answers(99)), sequential=True)
    report = done.report
    assert report["verdict"] == "pass" and report["items_asked"] < 60
    assert report["e_value"] >= 1 / report["design"]["alpha_early"]
    assert len(lines(done)) == 2 * report["items_asked"] and report["looks"]
    worse = certified(path, recorded("good", answers(99)), {**base, "model": "base"}, sequential=True)
    assert worse.report["verdict"] == "fail" and worse.report["items_asked"] < 60


def test_what_was_proven_early_still_waits_for_the_critical_items(pack, recorded, certified):
    path = pack(200, {i: {"critical": True} for i in range(0, 200, 10)})
    base = recorded("base", answers(200, *(i for i in range(200) if i % 10)))
    done = certified(path, base, recorded("cand", answers(200)), sequential=True)
    critical = done.report["critical"]
    assert (done.report["verdict"], critical["n"], critical["passed"]) == ("pass", 20, 20)
    assert done.report["items_asked"] < 100


def test_a_new_critical_failure_fails_whatever_the_mean_is(pack, recorded, certified):
    path, base = pack(40, {39: {"critical": True}}), recorded("base", answers(40, *range(20)))
    done = certified(path, base, recorded("cand", answers(40, 39)))
    assert done.report["verdict"] == "fail" and done.report["critical"]["new_failures"] == ["q039"]


def test_a_model_that_answers_nothing_was_not_compared(yard, pack, recorded, certified):
    base = recorded("base", answers(9))
    with pytest.raises(EvidenceError, match=r"cand: answered none of 9 questions \(lost\); see that"):
        certified(pack(9), base, recorded("cand", [None] * 9))
    with pytest.raises(EvidenceError, match="base: answered none of 9 questions"):
        certified(pack(9), recorded("base", [None] * 9), recorded("cand", answers(9)))
    assert "certificate.issued" not in kinds(yard)


def test_a_model_that_cannot_be_asked_ends_it_without_a_verdict(tmp_path, yard, pack, recorded, certified):
    base = recorded("base", answers(9))
    with fake_server(tmp_path / "log.jsonl", "--api-key", "right") as server:
        asked = {"name": "cand", "endpoint": server.endpoint, "model": "adder", "parallel": 1}
        with pytest.raises(EngineError, match="answers 401"):
            certified(pack(9), base, asked)
        (folder,) = (yard.root / "certificates").iterdir()
        assert not (folder / "paired_eval_report.json").exists()
        opened = {**asked, "api_key": "MODELYARD_TEST_KEY"}  # not part of who it is: the same comparison
        done = certified(pack(9), base, opened, environment={"MODELYARD_TEST_KEY": "right"})
    assert done.folder == folder and done.report["look"]["split_looks"] == 1


def test_a_stop_leaves_a_comparison_that_goes_on(yard, pack, recorded, certified):
    told = (pack(40), recorded("base", answers(40)), recorded("cand", answers(40, 1)))
    heard = []
    halted = certified(
        *told, stop=lambda: "enough" if len(heard) > 9 else "", told_of=lambda *each: heard.append(each)
    )
    assert halted.report is None and not (halted.folder / "paired_eval_report.json").exists()
    rest = []
    done = certified(*told, told_of=lambda *each: rest.append(each))
    assert done.report["items_asked"] == 40 and len(heard) + len(rest) == 80
    assert kinds(yard).count("certificate.issued") == 1 and done.report["look"]["split_looks"] == 1


@pytest.mark.parametrize("design", [{}, {"sequential": True}, {"samples": 2}])
def test_who_is_stopped_again_and_again_comes_to_the_same_report(tmp_path, pack, recorded, declared, design):
    path = pack(40, {i: {"critical": True, "cluster": f"c{i % 4}"} for i in range(0, 40, 5)})
    base = recorded("base", answers(40, *range(20)), samples=2)
    comparison = declared(path, base, recorded("cand", answers(40, 39), samples=2), **design)

    def run(yard, most):
        """Certify, stopping after so many replies each time, however many of its threads are under way."""
        while True:
            heard = []
            around = Surroundings(
                environment={},
                stop=lambda heard=heard: "enough" if len(heard) >= most else "",
                told=lambda *told, heard=heard: heard.append(told),
            )
            done = certify(yard, comparison, around)
            if done.report is not None:
                told = {**done.report, "created_at": None, "signature": None}
                return told, (done.folder / "answers.jsonl").read_bytes()

    whole, pieces = (
        run(open_yard(tmp_path / name, create=True), most) for name, most in (("whole", 1000), ("pieces", 11))
    )
    assert pieces == whole


def test_the_same_model_cannot_prove_anything_of_itself(pack, recorded, declared):
    base = recorded("base", answers(9))
    with pytest.raises(EvidenceError, match="other: is the same model as base, to the last option"):
        declared(pack(9), base, {**base, "name": "other", "model": "base"})


def test_what_models_are_fitted_to_proves_nothing(pack, recorded, declared):
    told = (pack(9), recorded("base", answers(9)), recorded("cand", answers(9, 1)))
    with pytest.raises(EvidenceError, match="fit is what models and routers are fitted to"):
        declared(*told, terms={"split": "fit"})


def test_an_empty_split_is_refused_before_anything_is_asked(yard, pack, recorded, certified):
    told = (pack(9), recorded("base", answers(9)), recorded("cand", answers(9, 1)))
    with pytest.raises(DocumentError, match=r'split = "report": has no example'):
        certified(*told, terms={"split": "report"})
    assert kinds(yard) == []


def test_a_key_that_does_not_count_signs_nothing(yard, pack, recorded, certified):
    told = (pack(9), recorded("base", answers(9)), recorded("cand", answers(9, 1)))
    certified(*told)
    for path in (yard.keys_dir / "trusted").iterdir():
        path.unlink()
    with pytest.raises(SignatureError, match=r"yard.pem: its public key is none of those in trusted/"):
        certified(*told, seed=1, told_of=lambda *_: pytest.fail("was asked"))


def test_overlap_is_recorded_or_refused(tmp_path, yard, pack, recorded, certified):
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps({"text": "Is 3 so?"}) + "\n" + json.dumps("Tell me: is 4 so? Yes."))
    told = (pack(9), recorded("base", answers(9)), recorded("cand", answers(9, 1)))
    with pytest.raises(EvidenceError, match=r"1 items stand in the training data and 0 share words.*q003"):
        certified(*told, provenance=Provenance(training_data=(data,), refuse_overlap=True))
    assert kinds(yard) == []
    done = certified(*told, provenance=Provenance(training_data=(data,), run_id="r"))
    overlap = done.report["prompt_pack"]["overlap"]
    assert (overlap["exact"], overlap["ngram"], done.report["run_id"]) == (1, 0, "r")
    assert overlap["checked"] == [{"path": str(data), "digest": digest_path(data)}]


def test_a_retired_split_is_not_opened(pack, recorded, certified):
    path, base, cand = pack(9), recorded("base", answers(9)), recorded("cand", answers(9, 1))
    terms = {"retired_after": 2}
    done = [certified(path, base, cand, terms=terms, seed=seed) for seed in (0, 1, 1, 0)]
    assert [each.earlier for each in done] == [(), (done[0].id,), (done[0].id,), ()]
    with pytest.raises(EvidenceError, match="looked at 2 times and is retired after 2; freeze a new pack"):
        certified(path, base, cand, terms=terms, seed=2)


def test_a_report_that_was_changed_is_not_given_out(pack, recorded, certified):
    told = (pack(9), recorded("base", answers(9)), recorded("cand", answers(9, 1)))
    done = certified(*told)
    path = done.folder / "paired_eval_report.json"
    write_json(path, {**done.report, "verdict": "pass"})
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        certified(*told)
    path.write_text(json.dumps(done.report))  # the same record in other bytes
    with pytest.raises(EvidenceError, match="is not the report that was issued"):
        certified(*told)
    path.write_text("{")
    with pytest.raises(EvidenceError, match="is not JSON"):
        certified(*told)


def test_two_processes_do_not_work_on_one_comparison(yard, pack, recorded, declared):
    comparison = declared(pack(9), recorded("base", answers(9)), recorded("cand", answers(9, 1)))
    tried = []

    def again(*_told):
        if not tried:
            tried.append(True)
            with pytest.raises(EvidenceError, match="another process works on this comparison"):
                certify(yard, comparison, Surroundings(environment={}))

    around = Surroundings(environment={}, told=again)
    assert certify(yard, comparison, around).report is not None and tried


def test_tags_are_compared_each_and_corrected_for_their_number(pack, recorded, certified):
    tags = {i: {"tags": ["all", "first" if i < 20 else "last"]} for i in range(40)}
    path = pack(40, {**tags, 39: {"tags": ["all", "last", "rare"]}})
    done = certified(path, recorded("base", answers(40, *range(8), 38)), recorded("cand", answers(40)))
    told = {each["metric"]: each for each in done.report["secondary"]}
    assert set(told) == {
        "score of first",
        "score of last",
    }  # of all there is the primary, of one item nothing
    first, last = told["score of first"], told["score of last"]
    assert (first["n"], first["delta"]) == (20, 0.4) and (last["n"], last["delta"]) == (20, 0.05)
    assert (first["p"], first["holm_p"]) == (pytest.approx(2**-8), pytest.approx(2**-7))
    assert last["p"] == last["holm_p"] == 0.5
