"""`llm_*` settings as options of our searchers that ask a model.

The original's environment variables stand in for what the settings do not say. A key is only ever named: one
that stands in the settings is put into the environment that the searcher is given, under `KEY_VARIABLE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from modelyard.core.faults import Faults
from modelyard.tuning.tao.options import LanguageModel

#: Holds the key where the settings name no other variable.
KEY_VARIABLE = "AUTOML_LLM_API_KEY"
_ENDPOINT, _MODEL = "AUTOML_LLM_ENDPOINT", "AUTOML_LLM_MODEL"
#: The key of NVIDIA's own endpoints, sent to no other.
_NVIDIA_KEY, _NVIDIA = "NVIDIA_API_KEY", "nvidia.com"
#: What an answer may have, as with the original.
_TOKENS = 4096
#: A proposal waits no longer for a call.
_LONGEST_S = 120.0


def advice_options(llm: LanguageModel, environment: Mapping[str, str], faults: Faults) -> dict[str, Any]:
    """Options of searchers that ask a model, for the algorithm to check; what is missing is a fault."""
    endpoint = llm.endpoint or environment.get(_ENDPOINT, "")
    model = llm.model or environment.get(_MODEL, "")
    for name, value, variable in (("llm_endpoint", endpoint, _ENDPOINT), ("llm_model", model, _MODEL)):
        if not value:
            faults.add(name, None, "is missing, and the search asks a model", f"give it, or set {variable}")
    if llm.api_key and llm.api_key_env:
        faults.add("llm_api_key", None, "is given beside llm_api_key_env", "give one of them")
    timeout_s = _told(llm.timeout_s, environment, "AUTOML_LLM_TIMEOUT", faults)
    tokens = _told(llm.max_tokens, environment, "AUTOML_LLM_MAX_TOKENS", faults)
    found = {
        "endpoint": endpoint, "model": model, "api_key_env": _variable(llm, environment, endpoint),
        "temperature": _told(llm.temperature, environment, "AUTOML_LLM_TEMPERATURE", faults),
        "max_tokens": _TOKENS if tokens is None else int(tokens),
        "timeout_s": _LONGEST_S if timeout_s is None else min(timeout_s, _LONGEST_S),
        "max_cost_usd": llm.max_cost_usd, "price_in": llm.price_in, "price_out": llm.price_out,
        "max_total_tokens": llm.max_total_tokens,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def with_key(llm: LanguageModel, environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with the key that stands in the settings."""
    return {**environment, KEY_VARIABLE: llm.api_key} if llm.api_key else environment


def _variable(llm: LanguageModel, environment: Mapping[str, str], endpoint: str) -> str | None:
    """The name of the variable that holds the key; None where none is to be sent."""
    if llm.api_key_env is not None:
        return llm.api_key_env
    if llm.api_key or environment.get(KEY_VARIABLE):
        return KEY_VARIABLE
    host = urlsplit(endpoint).hostname or ""
    own = host == _NVIDIA or host.endswith(f".{_NVIDIA}")
    return _NVIDIA_KEY if own and environment.get(_NVIDIA_KEY) else None


def _told(given: float | None, environment: Mapping[str, str], variable: str, faults: Faults) -> float | None:
    """A number of the settings, or else of the environment."""
    word = environment.get(variable, "")
    if given is not None or not word:
        return given
    try:
        return float(word)
    except ValueError:
        faults.add(variable, word, "is not a number", "correct the variable, or unset it")
        return None
