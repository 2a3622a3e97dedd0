"""The verifier of certificates: it finds what the issuing code states, and every lie even of who may sign."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.verify.issuing import REPORT, Case, case, decided, issued, parts, signer

from modelyard.core.digests import digest_bytes
from modelyard.evidence.design import Design
from modelyard.evidence.outcomes import Item
from modelyard.verify.certificate import main, verify_certificate

KINDS = ("alone", "weighted", "clustered", "samples", "judged", "continuous")
SEQUENTIAL = {"sequential": True, "alpha_early": 0.01, "alpha_final": 0.04}
AGAINST = {"alternative": "non_inferiority", "margin": 0.05}


@pytest.fixture(scope="module")
def key():
    return signer()


@pytest.fixture(scope="module")
def trusted(key):
    return {key.key_id: key.public_pem}


@pytest.mark.parametrize("early", [{}, SEQUENTIAL], ids=["fixed", "sequential"])
@pytest.mark.parametrize("claim", [{}, AGAINST], ids=["superiority", "margin"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_what_the_issuing_code_states(tmp_path, key, trusted, kind, claim, early):
    """Two computations that share no code agree on every figure and verdict, whatever comes out."""
    for seed, n in enumerate((8, 30, 120)):
        budgets = {"critical_failures_allowed": 99 * (seed % 2), "losses_allowed": (None, 99, 3)[seed]}
        made = case(kind, seed, n, bootstrap=300, **claim, **early, **budgets)
        report = issued(tmp_path, made, key)
        verdict = verify_certificate(report, trusted)
        assert verdict.faults == ()
        stated = json.loads(report.read_text())
        assert verdict.verdict == stated["verdict"]
        assert verdict.candidate_digest == digest_bytes(b"new")
        assert verdict.baseline_digest == digest_bytes(b"old")
        assert (verdict.key_id, verdict.report_digest) == (key.key_id, digest_bytes(report.read_bytes()))


def tagged(made: Case) -> Case:
    """The same with tags that some have, all have, one has, and the later ones have."""
    tags = {
        item.id: ["all", "odd" if number % 2 else "even", *(["late"] if number % 3 == 0 else []),
                  *(["one"] if number == 4 else [])]
        for number, item in enumerate(made.items)
    }  # fmt: skip
    return replace(made, tags=tags)


@pytest.mark.parametrize("early", [{}, SEQUENTIAL], ids=["fixed", "sequential"])
@pytest.mark.parametrize("claim", [{}, AGAINST], ids=["superiority", "margin"])
@pytest.mark.parametrize("kind", KINDS)
def test_secondary_comparisons_are_found_anew(tmp_path, key, trusted, kind, claim, early):
    """By tag, each with the method that fits its items, corrected together."""
    for seed, n in enumerate((12, 50)):
        made = parts(tagged(case(kind, seed, n, bootstrap=200, **claim, **early)))
        stated = [each["metric"] for each in made.report["secondary"]]
        if made.report["items_asked"] == n:
            assert stated == ["score of even", "score of late", "score of odd"]
        assert verify_certificate(made.write(tmp_path, key), trusted).faults == ()


@pytest.mark.parametrize("name", ["n", "delta", "p", "holm_p"])
def test_no_figure_of_a_secondary_comparison_is_believed(tmp_path, key, name):
    made = parts(tagged(PASSING))
    made.report["secondary"][1][name] += 1 if name == "n" else 0.001
    (*_, fault) = verify_certificate(made.write(tmp_path, key), None).faults
    assert fault.startswith(("secondary.score of late." + name, "secondary.score of late.holm_p"))
    assert str(made.report["secondary"][1][name]) in fault or name == "p"


def test_no_tag_is_left_out_made_up_or_named_otherwise(tmp_path, key):
    def without(stated):
        stated.pop(0)

    def doubled(stated):
        stated.append(stated[0])

    def renamed(stated):
        stated[0]["metric"] = "score of mean"

    for change in (without, doubled, renamed):
        made = parts(tagged(PASSING))
        change(made.report["secondary"])
        (fault,) = verify_certificate(made.write(tmp_path, key), None).faults
        assert fault.startswith("secondary: the report states [") and fault.endswith(
            "the answers give ['score of even', 'score of late', 'score of odd']"
        )
    made = parts(PASSING)
    made.report["secondary"] = [{"metric": "score of even", "n": 50, "delta": 0.2, "p": 0.01, "holm_p": 0.01}]
    (fault,) = verify_certificate(made.write(tmp_path, key), None).faults
    assert fault.endswith("the answers give []")


PASSING = decided(30, 10, 60, critical=(50, 60, 70), method="mcnemar_exact")
STOPPED = decided(60, 2, 200, critical=(70, 80), method="mcnemar_exact", seed=3, **SEQUENTIAL)


def verdicts(tmp_path, made, key):
    found = verify_certificate(issued(tmp_path, made, key), None)
    assert found.faults == ()
    return found.verdict


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (PASSING, "pass"),
        (STOPPED, "pass"),
        (decided(10, 30, 60, method="mcnemar_exact"), "fail"),
        (decided(12, 10, 60, method="mcnemar_exact"), "inconclusive"),
        (decided(2, 60, 200, method="mcnemar_exact", seed=3, **SEQUENTIAL), "fail"),
        (decided(30, 10, 60, critical=(35,), method="mcnemar_exact"), "fail"),
        (
            decided(30, 10, 60, critical=(35,), method="mcnemar_exact", critical_failures_allowed=1),
            "pass",
        ),
        (decided(30, 10, 60, method="mcnemar_exact", losses_allowed=9), "fail"),
        (decided(30, 10, 60, method="mcnemar_exact", losses_allowed=10), "pass"),
        (decided(10, 11, 300, method="tango_score", **AGAINST), "pass"),
        (decided(0, 0, 40, method="tango_score", **AGAINST), "inconclusive"),
    ],
)
def test_the_verdict_is_found_from_the_answers(tmp_path, key, made, verdict):
    assert verdicts(tmp_path, made, key) == verdict


def test_the_figures_are_those_of_other_libraries(tmp_path, key, trusted):
    """What is stated here is computed by scipy and statsmodels, not by our own code."""
    from scipy import stats
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.proportion import proportion_confint

    made = parts(PASSING)
    low, high = proportion_confint(30, 40, alpha=0.1, method="beta")
    made.report |= {
        "counts": {"n11": 60, "n10": 10, "n01": 30, "n00": 0, "missing_base": 0, "missing_cand": 0},
        "p_value": float(stats.binom.sf(29, 40, 0.5)),
        "mcnemar_p": float(mcnemar([[60, 10], [30, 0]], exact=True).pvalue),
        "effect": {
            "delta": 0.2, "ci": [(2 * low - 1) * 0.4, (2 * high - 1) * 0.4], "level": 0.9,
            "method": "mcnemar_exact",
        },
        "aggregate": {"baseline": 0.7, "candidate": 0.9},
        "critical": {"passed": 3, "n": 3, "lower95": 0.05 ** (1 / 3), "new_failures": []},
        "verdict": "pass",
    }  # fmt: skip
    assert verify_certificate(made.write(tmp_path, key), trusted).faults == ()


def changed(record, path, value):
    """Set a value deep in a record."""
    *parents, last = path
    for name in parents:
        record = record[name]
    record[last] = value


LIES = [
    (("counts", "n01"), 31), (("counts", "missing_cand"), 1), (("counts", "n11"), True), (("counts",), []),
    (("effect", "delta"), 0.21), (("effect", "ci", 0), 0.05), (("effect", "ci"), [0.1]),
    (("effect", "level"), 0.95), (("effect", "method"), "sign"), (("p_value",), 0.0001),
    (("mcnemar_p",), 0.001), (("e_value",), 5.0), (("critical", "passed"), 2), (("critical", "n"), 4),
    (("critical", "lower95"), 0.9), (("critical", "new_failures"), ["i050"]), (("pairwise_losses",), []),
    (("aggregate", "baseline"), 0.6), (("items_asked",), 99), (("verdict",), "inconclusive"),
    (("verdict",), "maybe"), (("looks",), [{"items": 9, "e_value": 1.0, "e_against": 1.0}]),
    (("reasons",), ["It is better."]), (("reasons",), [5]), (("secondary",), "none"),
    (("secondary",), [{"metric": "x", "p": 0.04, "holm_p": 0.5}]), (("prompt_pack", "n"), 101),
    (("prompt_pack", "n_critical"), 2), (("prompt_pack", "clusters"), 1), (("design", "alpha"), 0.06),
    (("design", "alpha_final"), 0.04), (("design", "iteration"), 2), (("design", "samples"), 2),
    (("design", "method"), "auto"), (("design", "method"), "tango_score"), (("design", "seed"), 1),
    (("design", "method"), "cluster_robust"), (("design", "margin"), 0.1), (("design", "seed"), "0"),
    (("design", "alternative"), "equivalence"), (("design", "sequential"), True),
    (("design", "bootstrap"), 10**9), (("schema",), "modelyard.paired_eval_report/2"),
    (("candidate", "digest"), None), (("raw_outputs",), "pack.jsonl"), (("raw_outputs",), "../answers.jsonl"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), LIES, ids=str)
def test_no_lie_of_the_signer_stands(tmp_path, key, trusted, path, value):
    """Each figure changed alone, and signed again by a trusted key: the fault names the place."""
    made = parts(PASSING)
    changed(made.report, path, value)
    found = verify_certificate(made.write(tmp_path, key), trusted)
    told = "\n".join(found.faults)
    assert not told.startswith("signature")
    names = [word for word in (path[0], path[-1], value) if isinstance(word, str) and len(word) > 1]
    assert any(name in told for name in names)


def test_a_fault_has_the_value_stated_and_the_value_found(tmp_path, key, trusted):
    made = parts(PASSING)
    made.report["aggregate"]["candidate"] = 0.95
    made.report["verdict"] = "fail"
    assert verify_certificate(made.write(tmp_path, key), trusted).faults == (
        "aggregate.candidate: the report states 0.95, the answers give 0.9",
        "verdict: the report states 'fail', the answers give 'pass'",
    )


def rescored(made, wanted):
    """Give answers other scores, as a forger of raw outputs would."""
    for line in made.answers:
        if line["item"] in wanted and line["side"] == "candidate":
            line["score"] = wanted[line["item"]]


def without(made, *items):
    made.answers = [line for line in made.answers if line["item"] not in items]


def one(made, **fields):
    made.answers[7] |= fields


FORGERIES = {
    "other scores": (lambda m: rescored(m, {"i030": 1.0, "i031": 1.0}), "counts.n11"),
    "a score above 1": (lambda m: rescored(m, {"i030": 1.5}), "is not between 0 and 1"),
    "a failed answer with a score": (lambda m: one(m, error="timed out", score=1.0), "is worth 0"),
    "a missing answer with a score": (lambda m: one(m, text=None, score=1.0, error="lost"), "is worth 0"),
    "an empty answer with a score": (lambda m: one(m, text=" \n", score=1.0), "is worth 0"),
    "no text and no error": (lambda m: one(m, text=None, score=0.0), "has neither a text nor an error"),
    "a lost item left out": (lambda m: without(m, "i030"), "verdict: the report states 'pass'"),
    "one answer left out": (lambda m: m.answers.pop(5), "does not have the samples 0 to 0 of both models"),
    "an answer twice": (lambda m: m.answers.append({**m.answers[0], "asked": 999}), "has two answers"),
    "a number twice": (lambda m: one(m, asked=7), "a number stands twice"),
    "another order": (lambda m: m.answers.reverse(), "not in the order in which they were asked"),
    "another place": (lambda m: one(m, order=99), "the seed puts its item at"),
    "another model": (lambda m: one(m, side="other"), "is of neither of baseline and candidate"),
    "no item of the pack": (lambda m: one(m, item="new"), "is not in the pack"),
    "another weight": (lambda m: one(m, weight=2.0), "has weight 2, the pack has 1"),
    "another cluster": (lambda m: one(m, cluster="all"), "has cluster 'all'"),
    "not critical": (lambda m: [line.update(critical=False) for line in m.answers], "has critical False"),
    "another scorer": (lambda m: one(m, scorer="regex"), "has scorer 'regex'"),
    "another scorer's version": (
        lambda m: [line["scorer"].update(version="2") for line in m.pack],
        "has scorer_version 1, the pack has 2",
    ),
    "a field too many": (lambda m: one(m, note="x"), "a wrong one: note"),
    "a field too few": (lambda m: m.answers[7].pop("latency_s"), "a wrong one: latency_s"),
    "a number as text": (lambda m: one(m, score="1"), "a wrong one: score"),
    "true as a number": (lambda m: one(m, sample=False), "a wrong one: sample"),
    "no answers at all": (lambda m: m.answers.clear(), "holds nothing"),
    "no pack at all": (lambda m: m.pack.clear(), "holds nothing"),
    "an item of the pack left out": (lambda m: m.pack.pop(0), "is not in the pack"),
    "an item of the pack twice": (lambda m: m.pack.append(m.pack[0]), "an id stands twice"),
    "a weight of nothing": (lambda m: m.pack[0].update(weight=0.0), "a weight is not above 0"),
    "a sample twice as many": (lambda m: one(m, sample=1), "does not have the samples 0 to 0"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_no_forgery_of_the_raw_answers_stands(tmp_path, key, trusted, name):
    """The files are changed and their new digests signed: they must contradict each other or the report."""
    change, told = FORGERIES[name]
    found = verify_certificate(issued(tmp_path, PASSING, key, change), trusted)
    assert told in "\n".join(found.faults)
    assert not any(fault.startswith("signature") for fault in found.faults)


@pytest.mark.parametrize("name", ["answers.jsonl", "pack.jsonl"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.replace(b"exact", b"extra", 1), "the report states the digest"),
        (lambda content: content[:-1], "is not in canonical form"),
        (lambda content: content.replace(b'":', b'": ', 1), "is not in canonical form"),
        (lambda content: b"\n" + content, "line 1 "),
        (lambda content: content.replace(b'"weight":1', b'"weight":1,"weight":1', 1), "twice"),
        (lambda content: content.replace(b'"weight":1', b'"weight":1e999', 1), "no number"),
        (lambda content: content.replace(b'"weight":1', b'"weight":NaN', 1), "no number"),
        (lambda content: content.replace(b'"weight":1', b'"weight":9007199254740993', 1), "no number"),
        (None, "cannot be read"),
    ],
)  # fmt: skip
def test_a_file_that_was_changed_after_signing_is_noticed(tmp_path, key, trusted, name, change, told):
    report = issued(tmp_path, PASSING, key)
    path = tmp_path / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    found = verify_certificate(report, trusted)
    assert any(fault.startswith(name) and told in fault for fault in found.faults)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: r["candidate"].update(digest="sha256:00"), "it does not cover the record"),
        (lambda r: r.pop("signature"), "signature: there is none"),
        (lambda r: r["signature"].update(value="AAAA"), "it does not cover the record"),
        (lambda r: r["signature"].update(value="?"), "it does not cover the record"),
        (lambda r: r["signature"].update(algorithm="none"), "it is 'none' where ecdsa-p256-sha256"),
        (lambda r: r["signature"].update(more=""), "it does not have the texts"),
        (lambda r: r["signature"].update(public_key="junk"), "is not the key that its key_id names"),
        (lambda r: r["signature"].update(key_id="sha256:00"), "is not the key that its key_id names"),
    ],
)
def test_a_report_that_was_changed_after_signing_is_noticed(tmp_path, key, trusted, change, told):
    report = issued(tmp_path, PASSING, key)
    record = json.loads(report.read_text())
    change(record)
    report.write_text(json.dumps(record))
    for keys in (trusted, None):
        assert any(told in fault for fault in verify_certificate(report, keys).faults)


def test_the_trusted_keys_decide_not_the_one_that_the_report_brings(tmp_path, key, trusted):
    forger = signer()
    report = issued(tmp_path, PASSING, forger)
    (fault,) = verify_certificate(report, trusted).faults
    assert fault == f"signature: its key {forger.key_id} is none of the 1 trusted ones"
    assert verify_certificate(report, {forger.key_id: key.public_pem}).faults
    nobody = verify_certificate(report, None)
    assert (nobody.faults, nobody.key_id) == ((), forger.key_id)


def test_a_report_that_is_none_is_a_fault_and_no_crash(tmp_path):
    assert verify_certificate(tmp_path / "none.json").faults[0].endswith("(No such file or directory)")
    report = tmp_path / REPORT
    for content in (
        b"",
        b"[]",
        b"\xff",
        b'{"a":1,"a":1}',
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"schema": 1e999}',
    ):
        report.write_bytes(content)
        found = verify_certificate(report)
        assert found.faults and (found.verdict, found.candidate_digest) == ("", "")


def test_early_stopping_is_found_from_the_order_of_asking(tmp_path, key, trusted):
    """The items behind the one that decided do not count for the figures, but for the budgets."""
    made = parts(STOPPED, beyond=5)
    stopped = made.report["looks"][-1]["items"]
    assert stopped < made.report["items_asked"] < len(STOPPED.items)
    assert sum(made.report["counts"][cell] for cell in ("n11", "n10", "n01", "n00")) == stopped
    assert verify_certificate(made.write(tmp_path, key), trusted).faults == ()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: without(m, m.answers[0]["item"]), "looks: there is none"),
        (lambda m: m.report["looks"].pop(), "looks: the report states"),
        (lambda m: m.report["looks"][3].update(e_value=50.0), "e_value: the report states 50"),
        (lambda m: m.report["looks"][3].update(e_against=0.0), "e_against: the report states 0"),
        (lambda m: m.report["looks"].reverse(), "looks: the report states"),
        (lambda m: m.report["looks"].append({"items": 1}), "looks: one does not have items"),
        (lambda m: m.report["looks"].append(None), "looks: one does not have items"),
        (lambda m: m.report["design"].update(alpha_early=0.0001, alpha_final=0.0499), "verdict: the report"),
        (lambda m: m.report.update(e_value=101.0), "e_value: the report states 101"),
    ],
    ids=range(9),
)
def test_no_lie_about_early_stopping_stands(tmp_path, key, trusted, change, told):
    made = parts(STOPPED)
    change(made)
    found = verify_certificate(made.write(tmp_path, key), trusted)
    assert told in "\n".join(found.faults)


def test_a_claim_proven_early_needs_every_critical_item(tmp_path, key, trusted):
    """Who stops before a critical item was asked has not shown that it is not failed."""
    made = parts(STOPPED)
    stopped = made.report["looks"][-1]["items"]
    order = {item.id: place for place, item in enumerate(STOPPED.order)}
    late = [line["item"] for line in made.answers if line["critical"] and order[line["item"]] >= stopped]
    assert late
    without(made, *late)
    found = verify_certificate(made.write(tmp_path, key), trusted)
    assert found.verdict == "inconclusive"
    assert "verdict: the report states 'pass', the answers give 'inconclusive'" in found.faults
    assert any("the critical items that were not asked" in fault for fault in found.faults)


def test_a_budget_of_losses_is_of_the_whole_pack(tmp_path, key, trusted):
    """Who stops before the pack ends has not shown how many items would be lost."""
    made = decided(60, 2, 200, method="mcnemar_exact", seed=3, losses_allowed=5, **SEQUENTIAL)
    report = parts(made)
    stopped = report.report["looks"][-1]["items"]
    assert report.report["verdict"] == "pass" and report.report["items_asked"] == 262 > stopped
    without(report, *(line["item"] for line in report.answers if line["order"] >= stopped))
    found = verify_certificate(report.write(tmp_path, key), trusted)
    assert found.verdict == "inconclusive"
    assert "verdict: the report states 'pass', the answers give 'inconclusive'" in found.faults


def test_a_rare_loss_is_not_taken_for_certainty(tmp_path, key, trusted):
    """One loss in sixty items of twenty clusters: the error is at least that of losses at the margin."""
    items = [Item(id=f"i{n:02d}", cluster=f"c{n % 20}") for n in range(60)]
    scores = {item.id: ((1.0,), (float(item.id != "i07"),)) for item in items}
    made = Case(items=items, scores=scores, design=Design(method="cluster_robust", **AGAINST))
    found = verify_certificate(issued(tmp_path, made, key), trusted)
    assert (found.faults, found.verdict) == ((), "inconclusive")


def test_looks_may_be_thinned_out(tmp_path, key, trusted):
    made = decided(20, 20, 560, method="mcnemar_exact", **SEQUENTIAL)
    report = parts(made)
    assert len(report.report["looks"]) <= 200 and report.report["items_asked"] == 600
    assert verify_certificate(report.write(tmp_path, key), trusted).faults == ()


@pytest.mark.parametrize(
    ("made", "method", "told"),
    [
        (case("clustered", 0), "mcnemar_exact", "takes items for independent, but some share a cluster"),
        (case("weighted", 0), "mcnemar_exact", "takes items for alike, but their weights differ"),
        (case("samples", 0), "mcnemar_exact", "needs one sample of each item"),
        (case("continuous", 0, bootstrap=100), "sign", "takes items for independent"),
        (case("alone", 0, **AGAINST), "mcnemar_exact", "knows no margin"),
        (case("alone", 0), "tango_score", "needs a margin"),
        (case("alone", 0), "z", "is none that decides"),
    ],
)
def test_a_method_that_does_not_fit_is_a_fault(tmp_path, key, trusted, made, method, told):
    """A forger would name the test that gives the smaller p-value."""
    report = parts(made)
    report.report["design"]["method"] = report.report["effect"]["method"] = method
    (fault,) = verify_certificate(report.write(tmp_path, key), trusted).faults
    assert fault.startswith(f"design.method '{method}' {told}")


def test_scores_between_0_and_1_are_not_counted_as_wins(tmp_path, key, trusted):
    made = parts(PASSING)
    rescored(made, {"i000": 0.7})
    (fault,) = verify_certificate(made.write(tmp_path, key), trusted).faults
    assert "counts wins and losses, but a difference is neither -1, 0 nor 1" in fault


def test_missing_answers_count_as_failures(tmp_path, key, trusted):
    """Intention to treat: what never came is lost, and is counted as missing besides."""
    gone = frozenset((f"i{n:03d}", "candidate", 0) for n in range(40, 65))
    made = Case(items=PASSING.items, scores=PASSING.scores, design=PASSING.design, missing=gone)
    report = parts(made)
    assert report.report["counts"]["missing_cand"] == 25 and report.report["counts"]["n10"] == 35
    found = verify_certificate(report.write(tmp_path, key), trusted)
    assert (found.faults, found.verdict) == ((), "fail")


def test_draws_of_the_bootstrap_that_tie_may_count_either_way(tmp_path, key, trusted):
    """Rounding may tell equal draws apart on one machine and not on another."""
    rng = np.random.default_rng(5)
    items = [Item(id=f"i{n:02d}", cluster=f"c{n % 4}") for n in range(16)]
    scores = {item.id: ((0.0,), (float(rng.integers(0, 2)) / 2,)) for item in items}
    made = Case(items=items, scores=scores, design=Design(method="cluster_bootstrap", bootstrap=200))
    report = parts(made)
    assert verify_certificate(report.write(tmp_path, key), trusted).faults == ()
    report.report["p_value"] += 0.2
    (fault,) = verify_certificate(report.write(tmp_path, key), trusted).faults
    assert fault.startswith("p_value: the report states")


def test_the_command_prints_the_verdict_and_its_status_tells_it(tmp_path, key, capsys):
    report = issued(tmp_path, PASSING, key)
    argv = [sys.executable, "-m", "modelyard.verify.certificate", str(report)]
    good = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert (good.stdout, good.stderr) == (f"verdict pass, signed by {key.key_id}: HOLDS\n", "")
    (tmp_path / "trusted").mkdir()
    arguments = [str(report), "--trusted", str(tmp_path / "trusted")]
    assert main(arguments) == 1
    bad = capsys.readouterr()
    assert bad.out.endswith("DOES NOT HOLD\n") and "is none of the 0 trusted ones" in bad.err
    (tmp_path / "trusted" / "own.pem").write_text(key.public_pem)
    assert main(arguments) == 0
    (tmp_path / "trusted" / "bad.pem").write_text("junk")
    assert main(arguments) == 1 and "is not a public key" in capsys.readouterr().err


def test_it_needs_nothing_of_ours():
    code = (
        "import sys, modelyard.verify.certificate\n"
        "print([name for name in sys.modules if name.startswith('modelyard')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names = set(json.loads(loaded.replace("'", '"')))
    assert names - {"modelyard", "modelyard.verify"} == {
        n for n in names if n.startswith("modelyard.verify.")
    }
