"""BM25: scores by the formula, exact top-k with stable ties, tokens that depend on the text alone."""

import collections
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.common.bm25 import BM25, LANGUAGES, tokens

PASSAGES = [
    "The boundary layer of a thin wing at supersonic speed",
    "Layers of boundary conditions for the heat equation",
    "A wing is a wing: wings, winged flight",
    "",
    "the of and",
    "Slender bodies in supersonic flow",
]
WORDS = st.text("abc ", max_size=30)


def by_formula(query: str, passages: list[str], k1: float = 1.5, b: float = 0.75) -> np.ndarray:
    """Lucene's BM25 written out (Kamphuis et al. 2020, table 1), the repetition of a query word counting again."""
    words = tokens(passages)
    mean = sum(map(len, words)) / len(words)
    frequency = collections.Counter(word for passage in words for word in set(passage))
    found = []
    for passage in words:
        counts = collections.Counter(passage)
        score = 0.0
        for word in tokens([query])[0]:
            if counts[word]:
                idf = math.log(1 + (len(passages) - frequency[word] + 0.5) / (frequency[word] + 0.5))
                score += idf * counts[word] / (counts[word] + k1 * (1 - b + b * len(passage) / mean))
        found.append(score)
    return np.array(found)


@pytest.mark.parametrize("query", ["supersonic wings", "wing wing heat", "boundary", "nothing known", "", "of the"])
def test_scores_follow_the_formula(query: str) -> None:
    np.testing.assert_allclose(BM25(PASSAGES).scores(query), by_formula(query, PASSAGES), atol=1e-6)


def test_words_are_lower_case_stems_without_stop_words_and_keep_order_and_repetitions() -> None:
    assert tokens(["The Running of RUNNERS, running in Zürich; x1 a C"]) == [["run", "runner", "run", "zürich", "x1"]]
    assert tokens(["The Running"], None) == [["the", "running"]]
    assert tokens(["Die Häuser und das Haus"], "german") == [["haus", "haus"]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_named_language_has_stemmer_and_stop_words(language: str) -> None:
    assert tokens(["zzyzx"], language)[0]


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="klingon"):
        tokens(["a"], "klingon")


def test_half_surrogate_pairs_do_no_harm() -> None:
    assert tokens(["broken \ud83d text"]) == [["broken", "text"]]


def test_tokens_of_a_text_do_not_depend_on_its_neighbours_or_the_process() -> None:
    alone = [tokens([text])[0] for text in PASSAGES]
    assert tokens(PASSAGES) == alone
    code = f"from scripts.common.bm25 import BM25; print(BM25({PASSAGES!r}).scores('wings at supersonic').tolist())"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_top_k_is_best_first_with_ties_in_the_order_of_the_rows() -> None:
    rows, scores = BM25(PASSAGES).top_k(["supersonic", "unknown"], 4)
    everything = BM25(PASSAGES).scores("supersonic")
    assert rows[0].tolist() == sorted(range(6), key=lambda row: (-everything[row], row))[:4]
    np.testing.assert_array_equal(scores[0], everything[rows[0]])
    assert rows[1].tolist() == [0, 1, 2, 3]
    assert scores[1].tolist() == [0, 0, 0, 0]
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=12), st.lists(WORDS, min_size=1, max_size=4), st.integers(0, 15))
def test_top_k_equals_sorting_all_scores(passages: list[str], queries: list[str], k: int) -> None:
    index = BM25(passages)
    rows, scores = index.top_k(queries, k)
    assert rows.shape == scores.shape == (len(queries), min(k, len(passages)))
    for number, query in enumerate(queries):
        everything = index.scores(query)
        assert np.isfinite(everything).all()
        expected = np.lexsort((np.arange(len(passages)), -everything))[:k]
        assert rows[number].tolist() == expected.tolist()
    if rows.shape[1]:
        np.testing.assert_array_equal(index.pair_scores(queries, rows), scores)


def test_pair_scores_take_any_rows() -> None:
    index = BM25(PASSAGES)
    pairs = np.array([[5, 0], [3, 2]])
    expected = np.stack([index.scores("supersonic")[[5, 0]], index.scores("wing")[[3, 2]]])
    np.testing.assert_array_equal(index.pair_scores(["supersonic", "wing"], pairs), expected)


@pytest.mark.parametrize("passages", [[], [""], ["the", "of"]])
def test_passages_without_a_word_score_zero(passages: list[str]) -> None:
    index = BM25(passages)
    assert index.scores("wing").tolist() == [0] * len(passages)
    assert index.top_k(["wing"], 3)[0].tolist() == [list(range(len(passages)))]
