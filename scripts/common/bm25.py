"""BM25, the lexical reference: exact top-k and scores of given pairs, by the ``bm25s`` library.

Scoring is Lucene's variant (Kamphuis et al. 2020, "Which BM25 do you mean?") with k1 = 1.5 and b = 0.75, as bm25s
(Lu 2024) has it. What the library leaves open is decided here: ties fall to the lower row (its own selection takes any
of them), a text without a known word scores zero, and the tokens of a text depend on that text and the language alone.
"""

from collections.abc import Sequence

import numpy as np

# Runs of two or more letters, digits or underscores, as bm25s, scikit-learn and most published baselines have it
WORD = r"(?u)\b\w\w+\b"
# Languages with both a Snowball stemmer and a list of stop words in bm25s (33 words for English: Lucene's)
LANGUAGES = (
    *("danish", "dutch", "english", "french", "german", "italian", "norwegian", "portuguese"),
    *("russian", "spanish", "swedish", "turkish"),
)


def tokens(texts: Sequence[str], language: str | None = "english") -> list[list[str]]:
    """Lower-cased, stemmed words of each text, in order and with repetitions, without stop words.

    Args:
        texts: Any strings; half surrogate pairs count as a question mark, which is no word.
        language: One of :data:`LANGUAGES`, or ``None`` for words as they stand (other languages, code).

    Raises:
        ValueError: The language is not one of these.
    """
    import bm25s
    import Stemmer

    if language is not None and language not in LANGUAGES:
        raise ValueError(f"no stemmer and stop words for {language!r}; there are: {', '.join(LANGUAGES)}")
    return bm25s.tokenize(
        # the stemmer takes UTF-8, which has no half surrogate pairs
        [text.encode("utf-8", "replace").decode() for text in texts],
        token_pattern=WORD,
        stopwords=language or [],
        stemmer=Stemmer.Stemmer(language) if language else None,
        return_ids=False,
        show_progress=False,
    )


class BM25:
    """An index of passages.

    Args:
        passages: The texts; a passage's row is its position here.
        language: See :func:`tokens`.
        k1: How soon more occurrences of a word count no more.
        b: How much longer passages are held back, 0 to 1.
    """

    def __init__(
        self, passages: Sequence[str], *, language: str | None = "english", k1: float = 1.5, b: float = 0.75
    ) -> None:
        import bm25s

        self.language, self.count = language, len(passages)
        words = tokens(passages, language)
        self._index = None
        # the library cannot index passages that have no word at all
        if any(words):
            self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
            self._index.index(words, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """Float32 scores of all passages, ``[passages]``."""
        return self._scores(tokens([query], self.language)[0])

    def top_k(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``k`` best passages of each query, best first; ties (zeros among them) fall to the lower row.

        Returns:
            ``(rows int64, scores float32)``, each ``[queries, min(k, passages)]``.
        """
        k = min(k, self.count)
        rows = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        for number, words in enumerate(tokens(queries, self.language)):
            found = self._scores(words)
            rows[number] = _best(found, k)
            scores[number] = found[rows[number]]
        return rows, scores

    def pair_scores(self, queries: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Scores of given pairs.

        Args:
            queries: The queries.
            rows: Passage rows of each query, int ``[queries, n]``.

        Returns:
            Float32 ``[queries, n]``.
        """
        rows = np.asarray(rows, np.int64).reshape(len(queries), -1)
        scores = np.empty(rows.shape, np.float32)
        for number, words in enumerate(tokens(queries, self.language)):
            scores[number] = self._scores(words)[rows[number]]
        return scores

    def _scores(self, words: list[str]) -> np.ndarray:
        known = self._index.get_tokens_ids(words) if self._index is not None else []
        if not known:
            return np.zeros(self.count, np.float32)
        return self._index.get_scores_from_ids(known)


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    chosen = np.arange(len(scores))
    if k < len(scores):
        edge = np.partition(scores, len(scores) - k)[len(scores) - k] if k else np.inf
        chosen = np.concatenate([np.flatnonzero(scores > edge), np.flatnonzero(scores == edge)])[:k]
    return chosen[np.lexsort((chosen, -scores[chosen]))]
