"""Secrets are known by their names or by declaration; ordinary names that look alike are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.redaction import REDACTED, is_secret, redacted


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "hf_token", "GITHUBTOKEN", "OPENAI_API_KEY", "APIKEY", "AWS_SECRET_ACCESS_KEY",
     "DB_PASSWORD",
     "PGPASSWD", "GOOGLE_CREDENTIALS", "SSH_PRIVATE_KEY"],
)  # fmt: skip
def test_names_that_give_a_secret_away(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "TOKENIZER_PATH", "PATH", "OMP_NUM_THREADS", "KEYBOARD"]
)
def test_names_that_only_look_alike(name):
    assert not is_secret(name)
    assert is_secret(name, declared=(name,))


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12)), st.sets(st.text(max_size=12), max_size=3))
def test_only_the_values_of_secrets_change(variables, declared):
    shown = redacted(variables, declared)
    assert shown.keys() == variables.keys()
    for name, value in shown.items():
        assert value == (REDACTED if is_secret(name, declared) else variables[name])
