"""What every embedder keeps to: unit vectors, the same alone and among others, known by a fingerprint."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import PluginError, RoutingError
from modelyard.core.plugins import plugin_names
from modelyard.routing.embedders import GROUP, SEEN_CHARS, load_embedder, seen_part

TEXTS = ["What is the capital of France?", "Integrate x squared from 0 to 1.", "", "\U0001f600 ünïcode 漢字"]


#: Those that need no argument.
PACKAGED = [name for name in plugin_names(GROUP) if name != "sentence_transformers"]


@pytest.fixture(params=PACKAGED, scope="module")
def embedder(request):
    return load_embedder(request.param)


def test_vectors_are_of_length_one_or_nothing(embedder):
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimensions) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 1], atol=1e-6)
    assert embedder.embed([]).shape == (0, embedder.dimensions)


def test_a_text_has_one_vector(embedder):
    together = embedder.embed(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_array_equal(embedder.embed([text])[0], vector)


def test_the_fingerprint_is_of_what_is_in_it(embedder):
    again = load_embedder(embedder.name)
    assert again.fingerprint == embedder.fingerprint
    np.testing.assert_array_equal(again.embed(TEXTS), embedder.embed(TEXTS))
    assert len({load_embedder(name).fingerprint for name in PACKAGED}) == len(PACKAGED)


def test_like_texts_are_nearer(embedder):
    one, like, other = embedder.embed(
        ["the cat sat on the mat", "the cat sat on a mat", "solve the quadratic equation"]
    )
    assert one @ like > one @ other


def test_of_a_long_text_both_ends_are_seen(embedder):
    filling = "word " * 2000
    assert len(seen_part(filling)) <= SEEN_CHARS + 1
    ends = embedder.embed([f"alpha {filling} omega", f"alpha {filling} {filling} omega"])
    assert ends[0] @ ends[1] > 0.999
    assert embedder.embed([f"alpha {filling}"])[0] @ embedder.embed([f"beta {filling}"])[0] < 1


def test_wordllama_gives_what_its_package_gives():
    wordllama = pytest.importorskip("wordllama")
    from pathlib import Path

    folder = Path(wordllama.__file__).parent
    peer = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    expected = peer.embed([text for text in TEXTS if text], norm=True)
    np.testing.assert_allclose(
        load_embedder("wordllama").embed([text for text in TEXTS if text]), expected, atol=1e-5
    )


def test_an_unknown_embedder_is_named():
    with pytest.raises(PluginError, match="hashing"):
        load_embedder("wordlama")


def test_a_model_of_sentence_transformers_is_an_embedder(tiny_checkpoint, tmp_path):
    embedder = load_embedder(f"sentence_transformers:{tiny_checkpoint}")
    texts = ["one two three", "three is the one", "", "two"]
    together = embedder.embed(texts)
    assert together.shape == (4, 16) == (4, embedder.dimensions)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), [1, 1, 0, 1], atol=1e-6)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_array_equal(embedder.embed([text])[0], vector)
    assert embedder.embed([]).shape == (0, 16)
    moved = shutil.copytree(tiny_checkpoint, tmp_path / "moved")
    assert load_embedder(f"sentence_transformers:{moved}").fingerprint == embedder.fingerprint
    assert load_embedder(embedder.name).name == embedder.name
    for missing in ("sentence_transformers", "sentence_transformers:/nowhere"):
        with pytest.raises(RoutingError, match="name the embedder sentence_transformers:FOLDER"):
            load_embedder(missing)


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab   \n\t.é日1🙂▁"), max_size=40) | st.text(max_size=30))
def test_wordllama_reads_words_as_it_reads_the_text(text):
    pytest.importorskip("wordllama")
    embedder = load_embedder("wordllama")
    assert embedder._tokens(text) == embedder._encoded(text)
