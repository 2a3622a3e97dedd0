"""Packs: both spellings, one digest, looks that are counted, and splits that are retired."""

from __future__ import annotations

import json

import pytest

from modelyard.core.errors import DocumentError, EvidenceError
from modelyard.core.journal import Draft
from modelyard.evaluation.frozen_sets import Opening, open_split, read_frozen
from modelyard.evidence.packs import open_pack, read_pack, snapshot

#: An item as packs spell it.
ITEM = {
    "prompt_id": "a",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}],
    "scorer": {"id": "numeric", "version": "1", "params": {"absolute": 0.1, "answers": ["4"]}},
    "critical": True,
    "cluster": "sums",
    "weight": 2,
    "tags": ["easy"],
}


@pytest.fixture
def write(tmp_path):
    def one(*rows, name="pack.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return one


def opening(run, split="certify"):
    return Opening(split=split, purpose="certify", models=("a", "b"), run=run)


def plain(name, **more):
    return {"id": name, "prompt": f"What is {name}?", "answers": ["x"], **more}


def test_an_item_is_read_as_an_example(write):
    (item,) = read_pack(write(ITEM)).examples
    assert (item.id, item.group_id, item.weight, item.critical, item.tags) == (
        "a", "sums", 2.0, True, ("easy",),
    )  # fmt: skip
    assert (item.scorer, item.scorer_version, dict(item.options)) == ("numeric", "1", {"absolute": 0.1})
    assert item.answers == ("4",) and item.split == "certify" and item.messages[1] == ("user", "2 + 2?")


def test_answers_and_choices_may_stand_beside_the_scorer(write):
    beside = {**ITEM, "scorer": {"id": "choice", "params": {"choices": ["3", "4"]}}, "answers": ["B"]}
    (item,) = read_pack(write(beside)).examples
    assert (item.answers, item.choices, item.scorer_version) == (("B",), ("3", "4"), None)


def test_one_pack_has_one_digest_whatever_its_order_and_spelling(write):
    own = {
        "id": "a", "messages": ITEM["messages"], "scorer": ITEM["scorer"],
        "critical": True, "group_id": "sums", "weight": 2.0, "tags": ["easy"],
    }  # fmt: skip
    first = read_pack(write(ITEM, plain("b"))).digest
    assert read_pack(write(plain("b"), own)).digest == first
    assert read_pack(write({**ITEM, "weight": 3}, plain("b"))).digest != first


def test_a_set_without_what_came_later_keeps_its_digest(write):
    path = write(plain("a", split="fit"), name="set.jsonl")
    assert read_frozen(path).digest == (
        "sha256:bc8cac42ee6ee034ace04dc3265e231fe8037f58092668316164fbda931cac9f"
    )


def test_without_splits_all_is_for_certifying_and_with_some_the_rest_is_for_fitting(write):
    rows = (plain("a"), plain("b"))
    assert read_pack(write(*rows)).sizes == {"fit": 0, "certify": 2, "report": 0}
    assert read_pack(write(rows[0], {**rows[1], "split": "report"})).sizes["fit"] == 1
    assert read_frozen(write(*rows)).sizes["fit"] == 2


def test_all_faults_of_an_item_come_at_once(write):
    scorer = {"id": "numeric", "version": "9", "params": {"deep": {"er": 1}, "answers": ["4"]}, "verson": 1}
    with pytest.raises(DocumentError) as caught:
        read_pack(write({**ITEM, "scorer": scorer, "id": "a"}, plain("b", cluster="x")))
    told = str(caught.value)
    for part in (
        "line 1.scorer.params.deep", "line 1.scorer.verson", "did you mean version?",
        "line 1.id", "line 2.cluster",
    ):  # fmt: skip
        assert part in told


def test_a_scorer_of_another_version_is_a_fault(write):
    scorer = {"id": "numeric", "version": "9", "params": {"answers": ["4"]}}
    with pytest.raises(DocumentError, match=r'scorer.version = "9": is not the version .* installed, 1; '):
        read_pack(write({**ITEM, "scorer": scorer}))


def test_only_in_a_pack_a_judge_needs_no_answer(write):
    path = write({"prompt_id": "a", "prompt": "Why?", "scorer": {"id": "judge"}})
    assert read_pack(path).examples[0].answers == ()
    with pytest.raises(DocumentError, match=r"line 1\.answers: names no answer"):
        read_frozen(path)
    with pytest.raises(DocumentError, match=r"line 1\.answers: names no answer"):
        read_pack(write({"prompt_id": "a", "prompt": "Why?", "scorer": {"id": "exact"}}))


def test_a_snapshot_is_a_pack_again(write, tmp_path):
    judged = {"prompt_id": "c", "prompt": "Why?", "scorer": {"id": "judge"}}
    pack = read_pack(write(plain("b", choices=["x", "y"]), ITEM, judged))
    path = tmp_path / "again.jsonl"
    path.write_bytes(snapshot(pack.sealed("certify")))
    again = read_pack(path)
    assert again.digest == pack.digest and [item.id for item in again.examples] == ["a", "b", "c"]
    assert snapshot(again.examples) == path.read_bytes()


def test_looks_are_counted_by_comparison_and_not_by_command(write, yard):
    pack = read_pack(write(ITEM))
    runs = ("r1", "r2", "r1", "r3")
    numbers = [open_pack(pack, yard.journal, opening(run), retired_after=9).number for run in runs]
    assert numbers == [1, 2, 1, 3]


def test_a_split_is_retired_but_its_comparisons_go_on(write, yard):
    pack = read_pack(write(ITEM))
    for run in ("r1", "r2"):
        open_pack(pack, yard.journal, opening(run), retired_after=2)
    with pytest.raises(EvidenceError, match="certify has been looked at 2 times and is retired after 2"):
        open_pack(pack, yard.journal, opening("r3"), retired_after=2)
    assert open_pack(pack, yard.journal, opening("r1"), retired_after=2).items[0].id == "a"
    assert len(list(yard.journal.read())) == 3


def test_an_evaluation_of_the_same_items_by_any_name_is_a_look(write, yard):
    open_split(read_frozen(write(plain("a"), name="other.jsonl")), yard.journal, opening("e1", "fit"))
    open_split(read_frozen(write(plain("b"), name="other.jsonl")), yard.journal, opening("e2", "fit"))
    look = open_pack(read_pack(write(plain("a"))), yard.journal, opening("r1"), retired_after=9)
    assert look.number == 2


def test_a_look_from_before_items_were_recorded_still_counts(write, yard):
    pack = read_pack(write(ITEM))
    for split in ("certify", "report"):
        data = {"set_digest": pack.digest, "split": split}
        yard.journal.append([Draft(kind="set.opened", run=f"old-{split}", data=data)])
    assert open_pack(pack, yard.journal, opening("r1"), retired_after=9).number == 2
