"""`heads advise`, `tree`, `generate` and `bench` on the tiny base."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from click.testing import CliRunner

from modelyard.cli.heads import advise, bench, generate, tree
from modelyard.core.errors import DocumentError, HeadsError
from modelyard.heads.base import Base
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.testing.tiny_language import tiny_sentences


def call(command, *arguments, given=None):
    """Run a command as from the shell; errors of ours are raised."""
    runner = CliRunner()
    return runner.invoke(command, [str(each) for each in arguments], catch_exceptions=False, input=given)


@pytest.fixture
def heads(tiny_heads_folder, tmp_path):
    return shutil.copytree(tiny_heads_folder, tmp_path / "heads")


@pytest.fixture
def expected(tiny_base):
    """What plain decoding gives after a text."""

    def decode(text, **settings):
        return Decoder(tiny_base).generate(
            tiny_base.tokenizer.encode(text), DecodeSettings(**{"max_new_tokens": 30, **settings})
        )

    return decode


class TestGenerate:
    """`heads generate`."""

    def test_the_text_is_that_of_plain_decoding_with_heads_and_without(
        self, tiny_base_folder, heads, expected
    ):
        asked = ("--prompt", "the owl likes", "--max-new-tokens", 30)
        for more in ((heads,), (), ("--lookup", 4), (heads, "--lookup", 3, "--exact")):
            done = call(generate.command, tiny_base_folder, *more, *asked)
            assert done.exit_code == 0 and done.stdout == expected("the owl likes").text + "\n"
            assert done.stderr == "" or "Loading" in done.stderr

    def test_the_prompt_may_come_from_standard_input(self, tiny_base_folder, heads, expected):
        done = call(generate.command, tiny_base_folder, heads, "--max-new-tokens", 30, given="the dog")
        assert done.stdout == expected("the dog").text + "\n"

    def test_options_reach_the_decoder(self, tiny_base_folder, heads, expected):
        done = call(
            generate.command, tiny_base_folder, heads, "--prompt", "the cat", "--max-new-tokens", 30,
            "--temperature", 1.5, "--top-k", 9, "--top-p", 0.9, "--seed", 3, "--repetition-penalty", 1.1,
            "--stop", "and", "--stop", "zz", "--json",
        )  # fmt: skip
        told = json.loads(done.stdout)
        other = expected(
            "the cat", temperature=1.5, top_k=9, top_p=0.9, seed=3, repetition_penalty=1.1, stop=("and", "zz")
        )
        assert (told["text"], told["tokens"], told["finish"]) == (other.text, [*other.tokens], other.finish)
        assert "and" not in told["text"]

    def test_json_tells_all(self, tiny_base_folder, heads):
        asked = ("--prompt", "the dog hears", "--max-new-tokens", 20)
        told = json.loads(call(generate.command, tiny_base_folder, heads, *asked, "--json").stdout)
        assert told["passes"] < len(told["tokens"]) and told["finish"] == "stop"
        assert sum(told["accepted"].values()) == told["passes"] - 1
        assert told["tokens_per_pass"] == round((len(told["tokens"]) - 1) / (told["passes"] - 1), 4) > 1
        assert told["wall_s"] >= 0 and told["prompt_tokens"] > 1

    def test_a_report_comes_beside_the_text(self, tiny_base_folder, heads, expected):
        asked = ("--prompt", "the cat", "--max-new-tokens", 30, "--report")
        done = call(generate.command, tiny_base_folder, heads, *asked)
        assert done.stdout == expected("the cat").text + "\n"
        lines = [line for line in done.stderr.splitlines() if line and "Loading" not in line]
        assert "tokens a pass" in lines[0] and lines[1].startswith("drafts accepted in a pass: ")
        assert "ms a token" in lines[2] and lines[2].endswith("ended by stop")

    def test_threads_are_set(self, tiny_base_folder):
        before = torch.get_num_threads()
        try:
            call(generate.command, tiny_base_folder, "--prompt", "a", "--max-new-tokens", 1, "--threads", 1)
            assert torch.get_num_threads() == 1
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize(
        ("more", "told"),
        [
            (("--prompt", ""), "prompt 0 has 0 tokens.*shorten"),
            (("--prompt", "a", "--max-new-tokens", 600), "the model reads from 1 to 512"),
            (("--prompt", "a", "--typical"), "typical acceptance needs a temperature"),
            (("--prompt", "a", "--stop", ""), "stop = .*not empty"),
            (("--prompt", "a", "--seed", 2**80), "seed"),
        ],
    )
    def test_what_cannot_be_is_told(self, more, told, tiny_base_folder):
        with pytest.raises(HeadsError, match=f"(?s){told}"):
            call(generate.command, tiny_base_folder, *more)

    def test_exact_in_bfloat16_is_the_same_with_heads_and_without(self, tiny_base_folder, heads):
        asked = ("--prompt", "the cat", "--max-new-tokens", 30, "--exact", "--dtype", "bfloat16")
        ours, plain = (call(generate.command, tiny_base_folder, *more, *asked) for more in ((heads,), ()))
        assert ours.exit_code == plain.exit_code == 0 and ours.stdout == plain.stdout != "\n"

    def test_folders_that_are_not_what_they_should_be(self, tiny_base_folder, tmp_path):
        with pytest.raises(HeadsError, match=r"is no folder with a config\.json; give"):
            call(generate.command, tmp_path / "none", "--prompt", "a")
        with pytest.raises(HeadsError, match=r"holds no heads\.json; give a folder"):
            call(generate.command, tiny_base_folder, tiny_base_folder, "--prompt", "a")


class TestTree:
    """`heads tree`."""

    @pytest.fixture
    def texts(self, tmp_path):
        path = tmp_path / "calib.jsonl"
        path.write_text("".join(json.dumps({"text": each}) + "\n" for each in tiny_sentences(20, seed=5)))
        return path

    def test_a_budget_is_written_and_used(self, heads, texts, tiny_base_folder, expected):
        done = call(tree.command, heads, "--calibrate", texts, "--budget", 5, "--threads", 1)
        assert done.exit_code == 0 and "5 nodes, " in done.stdout and "times plain decoding" in done.stdout
        assert done.stdout.count("  chosen") == 1 and "timing 17 of 17" in done.stderr
        written = json.loads((heads / "tree.json").read_text())
        assert len(written["choices"]) == 5 and written["threads"] == 1 and written["predicted"]["nodes"] == 5
        text = call(generate.command, tiny_base_folder, heads, "--prompt", "the owl", "--max-new-tokens", 30)
        assert text.stdout == expected("the owl").text + "\n"

    def test_a_dry_run_writes_nothing(self, heads, texts, tiny_base_folder):
        done = call(
            tree.command, heads, "--base", tiny_base_folder, "--calibrate", texts, "--clock", "cpu",
            "--dry-run", "--json", "--dtype", "bfloat16",
        )  # fmt: skip
        told = json.loads(done.stdout)
        assert (told["clock"], told["dtype"]) == ("cpu", "bfloat16") and not (heads / "tree.json").exists()
        chosen = 0 if told["predicted"] is None else told["predicted"]["nodes"]
        assert len(told["choices"]) == chosen and "timing" not in done.stderr

    def test_the_choice_is_drawn(self, heads, texts, tmp_path):
        picture = tmp_path / "tree.svg"
        done = call(tree.command, heads, "--calibrate", texts, "--budget", 3, "--plot", picture)
        assert done.exit_code == 0 and "3 nodes, each by the rank of its token" in picture.read_text()
        with pytest.raises(HeadsError, match=r"a picture ends in \.png or \.svg"):
            call(tree.command, heads, "--calibrate", tmp_path / "none.jsonl", "--plot", "a.gif")

    def test_what_cannot_be_is_told(self, heads, texts, tmp_path):
        for wrong in (0, 64, "many"):
            done = call(tree.command, heads, "--calibrate", texts, "--budget", wrong)
            assert done.exit_code == 2 and "--budget" in done.stderr
        with pytest.raises(DocumentError, match="cannot be read"):
            call(tree.command, heads, "--calibrate", tmp_path / "none.jsonl")
        record = json.loads((heads / "heads.json").read_text())
        for name in ("gone/base", None):
            (heads / "heads.json").write_text(json.dumps({**record, "base_name": name}))
            with pytest.raises(HeadsError, match=r"heads: their base .* is not there; give it by --base"):
                call(tree.command, heads, "--calibrate", texts)


class TestBench:
    """`heads bench`."""

    @pytest.fixture
    def prompts(self, tmp_path):
        path = tmp_path / "p.jsonl"
        path.write_text(
            "".join(json.dumps({"prompt": each}) + "\n" for each in ("the cat", "the owl", "a dog"))
        )
        return path

    def test_in_float32_all_ways_give_the_same_tokens(self, tiny_base_folder, heads, prompts):
        asked = (tiny_base_folder, heads, "--prompts", prompts, "--max-new-tokens", 20)
        told = json.loads(call(bench.command, *asked, "--json").stdout)
        assert [each["name"] for each in told] == ["plain", "tree", "lookup", "tree and lookup"]
        assert all(each["identical"] == each["prompts"] == 3 for each in told)
        assert all(
            each["regret"]["flips"] == 0 and each["regret"]["tokens"] == each["tokens"] for each in told
        )
        assert told[0]["tokens_per_pass"] == [1.0] * 3 and told[0]["wall_speedup"] == [1.0] * 3
        assert told[1]["tokens_per_pass"][0] > 1

    def test_the_ways_are_drawn(self, tiny_base_folder, heads, prompts, tmp_path):
        asked = (tiny_base_folder, heads, "--prompts", prompts, "--max-new-tokens", 5, "--no-regret")
        done = call(bench.command, *asked, "--plot", tmp_path / "bench.svg", "--json")
        assert len(json.loads(done.stdout)) == 4
        assert "tree and lookup" in (tmp_path / "bench.svg").read_text()

    def test_a_table_and_fewer_ways(self, tiny_base_folder, heads, prompts):
        asked = (tiny_base_folder, heads, "--prompts", prompts, "--max-new-tokens", 5)
        done = call(bench.command, *asked, "--lookup", 0, "--no-regret", "--dtype", "bfloat16")
        lines = done.stdout.splitlines()
        assert len(lines) == 3 and lines[1].startswith("plain ") and lines[2].startswith("tree ")
        assert "1.00 [1.00, 1.00]" in lines[1] and "flip" not in done.stdout
        assert "prompts 3 of 3" in done.stderr
        assert "flip" in call(bench.command, *asked, "--lookup", 0).stdout

    def test_what_cannot_be_is_told(self, tiny_base_folder, heads, prompts):
        prompts.write_text("{}\n")
        with pytest.raises(DocumentError, match="line 1"):
            call(bench.command, tiny_base_folder, heads, "--prompts", prompts)
        done = call(bench.command, tiny_base_folder, heads, "--prompts", prompts, "--max-new-tokens", 1)
        assert done.exit_code == 2 and "--max-new-tokens" in done.stderr


class TestAdvise:
    """`heads advise`."""

    def test_it_says_yes_or_no(self, tiny_base_folder):
        done = call(advise.command, tiny_base_folder, "--heads", 2, "--clock", "cpu")
        lines = done.stdout.splitlines()
        assert lines[0].split() == ["nodes", "pays", "above", "expected", "speed-up"] and len(lines) == 16
        assert lines[-1].startswith(("yes: about ", "no: no tree is expected to be 1.1 times as fast"))
        assert "cpu time" in lines[-1] and "timing 17 of 17" in done.stderr

    def test_as_json(self, tiny_base_folder):
        asked = (tiny_base_folder, "--heads", 1, "--shortlist", 5, "--dtype", "bfloat16", "--json")
        told = json.loads(call(advise.command, *asked).stdout)
        assert [each["nodes"] for each in told["sizes"]] == [1, 2, 3, 4] and told["dtype"] == "bfloat16"
        assert told["pays"] == (told["best"] is not None)

    def test_a_base_that_is_not_there(self, tmp_path):
        with pytest.raises(HeadsError, match=r"is no folder with a config\.json"):
            call(advise.command, tmp_path)


def test_what_heads_say_of_their_base_is_where_it_lay(tiny_heads_folder, tiny_base_folder):
    """The fixture's record says so, as that of `heads train` does."""
    record = json.loads((tiny_heads_folder / "heads.json").read_text())
    assert record["base"] == Base.open(tiny_base_folder).fingerprint
    assert record["base_name"] == str(tiny_base_folder)
