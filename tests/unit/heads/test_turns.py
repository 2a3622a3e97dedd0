"""Turns of a conversation as tokens, for templates of several kinds."""

from __future__ import annotations

import pytest

from modelyard.core.errors import HeadsError
from modelyard.heads.turns import Turns, vocabulary_digest

#: A system message before the user's words, and an end that is no special token.
WORDY = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }} {% elif m.role == 'user' %}"
    "<s>the user {{ m.content }} sleeps.{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}the {% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<s>{{ m.content }}</s>{% endfor %}"
)


@pytest.fixture
def turns(tiny_base):
    def with_template(template):
        tiny_base.tokenizer.chat_template = template
        return Turns(tiny_base.tokenizer)

    return with_template


def test_a_users_turn_is_opened_after_what_the_template_writes_before_it(turns, tiny_base):
    decode = tiny_base.tokenizer.decode
    assert decode(turns(WORDY).opened("", "the cat")) == "<s>the user the cat"
    assert decode(turns(WORDY).opened("the owl", "the cat")) == "the owl <s>the user the cat"
    assert decode(turns(WORDY).asked("the cat")) == "<s>the user the cat sleeps.the "


def test_a_request_ends_where_the_template_would_end_it(turns, tiny_base):
    rendering = turns(WORDY)
    start = rendering.opened("", "the cat")
    more = tiny_base.tokenizer.encode(" sees the mouse sleeps. and more")
    assert rendering.request("the cat", start, more) == ("the cat sees the mouse", True)
    unended = tiny_base.tokenizer.encode(" sees the")
    assert rendering.request("the cat", start, unended) == ("the cat sees the", False)


def test_a_template_without_system_messages_is_told_of(turns):
    with pytest.raises(HeadsError, match=r"refuses messages of system, user .*no system"):
        turns(STRICT).opened("the owl", "the cat")


def test_without_a_template_text_begins_at_the_opening_or_the_beginning(turns, tiny_base):
    plain = turns(None)
    assert tiny_base.tokenizer.decode(plain.opened("", "the cat")) == "the cat"
    assert plain.opened("", "") == [tiny_base.tokenizer.bos_token_id]
    tiny_base.tokenizer.bos_token = tiny_base.tokenizer.eos_token = None
    with pytest.raises(HeadsError, match="give topics with openings"):
        plain.opened("", "")


def test_another_vocabulary_has_another_digest(tiny_base):
    before = vocabulary_digest(tiny_base.tokenizer)
    tiny_base.tokenizer.add_tokens(["zebra"])
    assert vocabulary_digest(tiny_base.tokenizer) != before
