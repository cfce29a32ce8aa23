"""Which weights to ship: the best on validation, or between these and the base's, or the base's own.

Weights between base and tuned (``base + a * (tuned - base)``) often keep the gain and lose less elsewhere (Wortsman et
al. 2022, "Robust fine-tuning of zero-shot models", CVPR, arXiv:2109.01903; Xiao et al. 2023, "LM-Cocktail",
arXiv:2311.13534). Validation has few questions, of the kind that training had: of weights that it cannot tell from the
best, those nearest to the base are taken (the one-standard-error rule of Breiman et al. 1984, "Classification and
Regression Trees"; here the error is that of paired differences).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from scripts.common.contract import Side
from scripts.common.encoder import TorchEncoder
from scripts.common.errors import UserError
from scripts.common.files import read_jsonl
from scripts.common.job import log
from scripts.finetune.state import StateFolder
from scripts.finetune.stored import stored_vectors
from scripts.finetune.validation import K, Validation
from scripts.finetune.watch import Watch, write_rows

METRIC = f"ndcg@{K}"
Weights = dict[str, torch.Tensor]
Row = dict[str, Any]


class Scores:
    """Validation scores by step and share of the tuning, kept in a file so that a resumed run need not repeat them.

    Args:
        path: That file.
        validation: The questions, or ``None`` without any.
        watch: Told of each score.
    """

    def __init__(self, path: Path, validation: Validation | None, watch: Watch) -> None:
        self.path, self.validation, self.watch = path, validation, watch
        self.rows: list[Row] = []
        self._by_question: dict[tuple[int, float], list[float]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self._by_question[row["step"], row["share"]] = row.pop("by_question")
                self.rows.append(row)

    def of(self, step: int, share: float, encode: Callable[[Sequence[str], Side], np.ndarray]) -> None:
        """Score an encoder as the weights of a step and share, once."""
        if self.validation is None or any(row["step"] == step and row["share"] == share for row in self.rows):
            return
        by_question = self.validation.score(encode)
        score = round(float(by_question.mean()), 5)
        self.rows.append({"step": step, "share": share, METRIC: score})
        self._by_question[step, share] = [round(float(value), 5) for value in by_question]
        log.info("step %d, share %.2f: validation nDCG@%d %.4f", step, share, K, score)
        kept = [{**row, "by_question": self._by_question[row["step"], row["share"]]} for row in self.rows]
        write_rows(self.path, kept)
        self.watch.validated(self.rows)

    @property
    def base(self) -> Row:
        """The base model's row."""
        return next(row for row in self.rows if row["share"] == 0)

    def tuned(self) -> list[Row]:
        """Rows of whole checkpoints, best first; of equals the earlier."""
        return sorted((row for row in self.rows if row["share"] == 1), key=lambda row: (-row[METRIC], row["step"]))

    def ranked(self) -> list[Row]:
        """All rows, best first; of equals the nearer to the base."""
        return sorted(self.rows, key=lambda row: (-row[METRIC], row["share"], row["step"]))

    def within(self, best: Row, errors: float) -> list[Row]:
        """Rows that are at most so many standard errors of the paired difference worse than ``best``, best first."""
        reference = np.array(self._by_question[best["step"], best["share"]])
        close = []
        for row in self.ranked():
            worse = reference - np.array(self._by_question[row["step"], row["share"]])
            error = worse.std(ddof=1) / len(worse) ** 0.5 if len(worse) > 1 else 0.0
            if worse.mean() <= errors * error:
                close.append(row)
        return close

    def stalled(self, patience: int | None) -> bool:
        """Whether the last ``patience`` checkpoints all failed to beat the best before them."""
        whole = sorted((row for row in self.rows if row["share"] == 1), key=lambda row: row["step"])
        if patience is None or len(whole) <= patience:
            return False
        before = max(row[METRIC] for row in whole[:-patience])
        stalled = all(row[METRIC] <= before for row in whole[-patience:])
        if stalled:
            log.info("stopping at step %d: %d validations without a better one", whole[-1]["step"], patience)
        return stalled


class Selection:
    """Chooses the weights after training.

    Args:
        encoder: An encoder whose model takes the candidates' weights.
        base: The base model's weights.
        scores: What validation said of the checkpoints.
        states: Where their weights are.
        options: The ``finetune`` section by name.
        vectors: Folder of the vector store, which has the base model's vectors.
        general: The general test set, where one is configured.
    """

    def __init__(
        self,
        encoder: TorchEncoder,
        base: Weights,
        scores: Scores,
        states: StateFolder,
        options: Row,
        vectors: Path,
        general: Validation | None = None,
    ) -> None:
        self.encoder, self.base, self.scores, self.states = encoder, base, scores, states
        self.options, self.vectors, self.general = options, vectors, general
        self.general_scores: list[Row] = []
        self._general_file = states.folder / "general.jsonl"

    def choose(self) -> Row:
        """The row to ship.

        Raises:
            UserError: Nothing beats the base, and ``on_no_gain`` is ``fail``.
        """
        scores = self.scores
        self.load(0, 0.0)
        scores.of(0, 0.0, self._stored)
        best = scores.tuned()[0]
        for share in self.options["interpolation_shares"]:
            self.load(best["step"], share)
            scores.of(best["step"], share, self.encoder.encode)
        ranked = scores.ranked()
        better = [row for row in ranked if row["share"] and row[METRIC] > self._bar()]
        if errors := self.options["choose_within_errors"]:
            close = scores.within(ranked[0], errors)
            if scores.base in close:
                better = []
            else:
                # the nearest to the base first, then what validation ranks
                better.sort(key=lambda row: (row not in close, row["share"] if row in close else 0.0))
        for row in better:
            if self._remembers(row):
                return self._say(row)
        return self._say(self._without_gain(best, forgot=bool(better)))

    def load(self, step: int, share: float) -> None:
        """Give the encoder's model the weights of a step and share."""
        if share == 0:
            weights = self.base
        else:
            tuned = load_file(self.states.weights_file(step))
            weights = tuned if share == 1 else interpolate(self.base, tuned, share)
        self.encoder.model.load_state_dict(weights)
        self.encoder.model.eval()

    def _bar(self) -> float:
        return self.scores.base[METRIC] + self.options["min_gain"]

    def _remembers(self, row: Row) -> bool:
        if self.general is None:
            return True
        if not self.general_scores:
            self._score_general(0, 0.0, self._stored)
        self._score_general(row["step"], row["share"], self.encoder.encode)
        drop = self.general_scores[0][METRIC] - self.general_scores[-1][METRIC]
        if drop <= self.options["general_max_drop"]:
            return True
        log.warning(
            "step %d, share %.2f loses %.4f nDCG@%d on finetune.general_set: not chosen",
            *(row["step"], row["share"], drop, K),
        )
        return False

    def _score_general(self, step: int, share: float, encode: Callable[[Sequence[str], Side], np.ndarray]) -> None:
        # a finished run has kept the weights it chose, and the scores of those it refused
        known = [row for _, row in read_jsonl(self._general_file)] if self._general_file.is_file() else []
        row = next((row for row in known if (row["step"], row["share"]) == (step, share)), None)
        if row is None:
            self.load(step, share)
            row = {"step": step, "share": share, METRIC: round(float(self.general.score(encode).mean()), 5)}  # type: ignore[union-attr]
            write_rows(self._general_file, [*known, row])
        self.general_scores.append(row)
        score = row[METRIC]
        log.info("step %d, share %.2f: general nDCG@%d %.4f", step, share, K, score)

    def _without_gain(self, best: Row, *, forgot: bool) -> Row:
        base, policy = self.scores.base, self.options["on_no_gain"]
        what = (
            "every checkpoint that beats the base model forgets too much of finetune.general_set"
            if forgot
            else f"no checkpoint surely beats the base model on validation (base {base[METRIC]:.4f}, best "
            f"{best[METRIC]:.4f}, {len(self.scores.validation.questions)} questions)"  # type: ignore[union-attr]
        )
        advice = "More or better questions, a lower finetune.learning_rate or fewer epochs may help."
        if policy == "fail":
            raise UserError(f"{what}, and finetune.on_no_gain is fail: nothing is shipped. {advice}")
        if policy == "base":
            log.warning("%s: LATEST holds the base model's own weights. %s", what, advice)
            return base
        log.warning("%s; finetune.on_no_gain ships the best tuned weights all the same. %s", what, advice)
        return best

    def _say(self, chosen: Row) -> Row:
        for row in self.scores.rows:
            mark = "<- chosen" if row is chosen else ""
            log.info("validation nDCG@%d %.4f  step %d, share %.2f %s", K, row[METRIC], row["step"], row["share"], mark)
        return chosen

    def _stored(self, texts: Sequence[str], side: Side) -> np.ndarray:
        return stored_vectors(self.vectors, self.encoder, texts, side)


def interpolate(base: Weights, tuned: Weights, share: float) -> Weights:
    """``base + share * (tuned - base)`` for floating-point weights."""
    return {
        name: torch.lerp(base[name].float(), value.float(), share).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in tuned.items()
    }
