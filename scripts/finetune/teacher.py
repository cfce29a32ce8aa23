"""A teacher that needs no other model: the base model's scores and BM25's, fused.

Words and vectors miss different passages, and their sum finds more than either. The model in training learns that sum
from its own corpus (distillation), and so which words count there. As with pseudo-labels of a cross-encoder (Wang et
al. 2022, "GPL", arXiv:2112.07577), but from scores that cost nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scripts.common.bm25 import BM25
from scripts.common.encoder import Encoder
from scripts.common.passages import searchable
from scripts.finetune.examples import Example, TrainingData
from scripts.finetune.stored import stored_vectors


class FusionTeacher:
    """Scores of searchable passages: standardised over the corpus by question, then added.

    Args:
        store: Folder of the vector store.
        data: Examples and passages.
        encoder: The base model, for texts whose vectors are not stored yet.
        lexical_weight: Weight of BM25 beside the base model's 1.
        language: Stemmer and stop words of BM25.
    """

    def __init__(
        self,
        store: str | Path,
        data: TrainingData,
        encoder: Encoder,
        *,
        lexical_weight: float,
        language: str | None,
    ) -> None:
        self.lexical_weight = lexical_weight
        names = searchable(data.passages)
        texts = [data.passages[name].text for name in names]
        self._row = {name: row for row, name in enumerate(names)}
        for example in data.examples:
            # a passage made for a question, its sentence cut out, stands for the one it was made from
            whole = sorted(name for name in example.answers if name in self._row)
            if example.positive not in self._row and whole:
                self._row[example.positive] = self._row[whole[0]]
        self._passages = stored_vectors(store, encoder, texts, "passage")
        questions = list(dict.fromkeys(example.question for example in data.examples))
        self._questions = dict(
            zip(questions, stored_vectors(store, encoder, questions, "query"), strict=True),
        )
        self._lexical = BM25(texts, language=language)

    def __call__(self, batch: Sequence[Example], names: Sequence[str]) -> list[dict[str, float]]:
        """Scores by passage id of each example; ids that are not in the corpus get none."""
        rows = {name: self._row[name] for name in names if name in self._row}
        found = []
        for example in batch:
            fused = self.scores(example.question)
            found.append({name: float(fused[row]) for name, row in rows.items()})
        return found

    def scores(self, question: str) -> np.ndarray:
        """Fused scores of all searchable passages for a question of the data, ``[passages]``."""
        dense = self._passages @ self._questions[question]
        return _standard(dense) + self.lexical_weight * _standard(self._lexical.scores(question))


def _standard(scores: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1; all zero where the scores do not differ."""
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 1e-9 else np.zeros_like(scores)
