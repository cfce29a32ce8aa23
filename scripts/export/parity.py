"""How far an exported model is from its PyTorch source: cosines, agreement of search results, nDCG."""

import collections
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import TestSet
from scripts.common.bootstrap import RESAMPLES, bootstrap_interval
from scripts.common.contract import Side
from scripts.common.encoder import Encoder, pad
from scripts.common.errors import UserError
from scripts.common.metrics import evaluate_run
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.common.onnx_variants import cosine_facts, cosines
from scripts.common.search import as_run, top_k
from scripts.export.samples import spread

TOP = 10
CONFIDENCE = 0.95
# Scores this near are equal: rounding alone orders them
TIE = 1e-5
# Lengths may differ this much: cosines do not see a graph that forgot to normalise
LENGTH_TOLERANCE = 0.01


def subset(collection: TestSet, texts: int) -> TestSet:
    """A part of a collection of about ``texts`` texts, with real questions to search it with.

    A quarter are queries, at even steps of length; their judged passages come first, then others, also by length.
    """
    names = {text: name for name, text in collection.queries.items()}
    queries = {names[text]: text for text in spread(list(names), max(1, texts // 4))}
    judged = dict.fromkeys(name for query in queries for name in collection.qrels[query])
    others = {text: name for name, text in collection.corpus.items() if name not in judged and text.strip()}
    fill = max(0, texts - len(queries) - len(judged))
    chosen = judged | dict.fromkeys(others[text] for text in spread(list(others), fill))
    return TestSet(
        {name: collection.corpus[name] for name in chosen},
        queries,
        {query: collection.qrels[query] for query in queries},
        {query: collection.metadata.get(query, {}) for query in queries},
    )


@dataclasses.dataclass(frozen=True)
class Measured:
    """A model's vectors of a collection, ``[texts, dimension]`` each, and texts embedded per second."""

    queries: np.ndarray
    passages: np.ndarray
    speed: float

    @classmethod
    def of(cls, encoder: Encoder, collection: TestSet) -> "Measured":
        """Embed a whole collection."""
        start = time.monotonic()
        queries = encoder.encode(list(collection.queries.values()), "query")
        passages = encoder.encode(list(collection.corpus.values()), "passage")
        count = len(queries) + len(passages)
        return cls(queries, passages, round(count / (time.monotonic() - start), 1))

    def ndcg(self, collection: TestSet) -> np.ndarray:
        """nDCG@10 of each query."""
        found = top_k(self.queries, self.passages, TOP)
        run = as_run(list(collection.queries), list(collection.corpus), *found)
        scores = evaluate_run(collection.qrels, run, [TOP])
        return np.array([scores[query][f"NDCG@{TOP}"] for query in collection.queries])

    def agreement(self, reference: "Measured") -> float:
        """Share of the ten best passages of all queries that are among the reference's.

        Passages that it scores like its tenth count too: which of two equal ones comes first says nothing.
        """
        rows, _ = top_k(self.queries, self.passages, TOP)
        _, best = top_k(reference.queries, reference.passages, TOP)
        scores = np.einsum("qd,qkd->qk", reference.queries, reference.passages[rows])
        return float((scores >= best[:, -1:] - TIE).mean())

    def cosines(self, reference: "Measured") -> np.ndarray:
        """Cosine to the reference's vector, of each query and then of each passage."""
        return np.concatenate([cosines(self.queries, reference.queries), cosines(self.passages, reference.passages)])

    def against(self, reference: "Measured", collection: TestSet) -> dict[str, Any]:
        """Cosines, agreement of the ten best, nDCG difference with its 95 % bootstrap interval, and speed."""
        scores, expected = self.ndcg(collection), reference.ndcg(collection)
        differences = (scores - expected)[:, None]
        low, high = bootstrap_interval(differences, np.ones(len(differences)), CONFIDENCE, RESAMPLES, 0)
        return {
            "cosine": cosine_facts(self.cosines(reference)),
            "top_10_agreement": self.agreement(reference),
            "ndcg": float(scores.mean()),
            "ndcg_pytorch": float(expected.mean()),
            "ndcg_difference": float(differences.mean()),
            "ndcg_difference_interval": [float(low[0]), float(high[0])],
            "queries": len(collection.queries),
            "passages": len(collection.corpus),
            "texts_per_second": self.speed,
            "speed_against_pytorch": round(self.speed / reference.speed, 2),
        }


def problems(facts: dict[str, Any], limits: dict[str, float], option: str) -> list[str]:
    """What of :meth:`Measured.against` lies beyond its limits, each with the option that sets it.

    Args:
        facts: The comparison.
        limits: ``cosine``, ``agreement`` and ``ndcg_drop``.
        option: Dotted name of the limits, such as ``export.parity.fp32``.
    """
    found = []
    if not facts["cosine"]["min"] >= limits["cosine"]:
        found.append(
            f"the lowest cosine to PyTorch's vectors is {facts['cosine']['min']:.6f} (median "
            f"{facts['cosine']['median']:.6f}), but {option}.cosine is {limits['cosine']}"
        )
    if facts["top_10_agreement"] < limits["agreement"]:
        found.append(
            f"{100 * facts['top_10_agreement']:.1f} % of the ten best passages are PyTorch's, but {option}.agreement "
            f"is {limits['agreement']}"
        )
    low, high = facts["ndcg_difference_interval"]
    # only what is surely lost: on few queries a single swap of two equal passages moves the mean further
    if high < -limits["ndcg_drop"]:
        found.append(
            f"nDCG@10 changes by {facts['ndcg_difference']:+.4f} ({low:+.4f} to {high:+.4f}), but {option}.ndcg_drop "
            f"is {limits['ndcg_drop']}"
        )
    return found


def check_dimensions(
    exported: OnnxEncoder, texts: list[str], side: Side, min_cosine: float, *, whole: np.ndarray | None = None
) -> None:
    """Check the input ``dimensions``, with another number in each row of one batch, against cuts of whole vectors.

    A graph without that input has nothing to check.

    Args:
        exported: The graph.
        texts: Some of them are used.
        side: Their side.
        min_cosine: Lowest cosine allowed.
        whole: Vectors of all texts ``[len(texts), dimension]``; ``None`` takes what the graph itself gives for the same
            batch, as int8 activations are scaled by batch.

    Raises:
        UserError: A vector is not the cut.
    """
    if not exported.has_dimensions:
        return
    width = exported.contract.dimension
    rows = np.linspace(0, len(texts) - 1, min(len(texts), 4)).astype(int)
    # not below 16: over a few values rounding alone turns a vector
    dimensions = np.maximum(min(16, width), width // 2 ** np.arange(len(rows)))
    batch = pad(exported.tokenize([texts[row] for row in rows], side))
    ours = exported.forward(*batch, dimensions)
    theirs = (exported.forward(*batch) if whole is None else whole[rows]) * (np.arange(width) < dimensions[:, None])
    if exported.contract.l2_normalize:
        theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    names = [f"{side} {texts[row][:60]!r} at {size} dimensions" for row, size in zip(rows, dimensions, strict=True)]
    found = cosines(ours, theirs)
    worst = int(np.argmin(found))
    if found[worst] < min_cosine:
        raise UserError(
            f"{exported.folder} fails the parity check: cosine {found[worst]:.6f} to the cut of the whole vector for "
            f"{names[worst]}. Export again; without that input (export.use_dimension_arg=false) if it persists."
        )
    check_lengths(ours, theirs, names)


def graph_facts(path: Path) -> dict[str, Any]:
    """Opset, inputs and weight type (that of most weights), as the file has them."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    weights: collections.Counter[int] = collections.Counter()
    for tensor in model.graph.initializer:
        weights[tensor.data_type] += int(np.prod(tensor.dims))
    kinds = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16"}
    return {
        "opset": next(entry.version for entry in model.opset_import if not entry.domain),
        "dtype": kinds[weights.most_common(1)[0][0]],
        "inputs": [item.name for item in model.graph.input],
    }


def check_lengths(ours: np.ndarray, theirs: np.ndarray, names: list[str]) -> None:
    """:class:`UserError` names the row whose length differs most from that of the reference, beyond the tolerance."""
    lengths = (np.linalg.norm(rows.astype(np.float64), axis=1) for rows in (ours, theirs))
    mine, other = lengths
    ratio = np.divide(mine, other, out=np.ones_like(mine), where=other > 0)
    worst = int(np.argmax(np.abs(ratio - 1)))
    if abs(ratio[worst] - 1) > LENGTH_TOLERANCE:
        raise UserError(
            f"the export fails the parity check: the vector for {names[worst]} is {ratio[worst]:.4f} times as long as "
            "PyTorch's. Delete the export's folder and run again."
        )
