"""The parity gate: the exported graph gives the vectors that PyTorch gives, on real texts, or the stage fails."""

import collections
import dataclasses
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import TestSet, read_beir
from scripts.common.contract import Side
from scripts.common.encoder import TorchEncoder, open_encoder, pad
from scripts.common.errors import UserError
from scripts.common.files import sha256_file, write_json
from scripts.common.job import job, log
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.common.onnx_variants import cosines
from scripts.export.export_onnx import open_checkpoint
from scripts.export.figure import write_figure
from scripts.export.parity import Measured, check_lengths, problems, subset


def export(
    checkpoint: str | Path,
    exported: str | Path,
    test_set: str | Path,
    target: str | Path,
    *,
    samples: int,
    limits: dict[str, dict[str, float]],
    figure: dict[str, Path] | None = None,
    attention: str | None = None,
    plan: str | Path | None = None,
) -> None:
    """Compare both models on queries and passages of the test set and write ``export.json``.

    Args:
        checkpoint: The checkpoint's contract.
        exported: The export's contract.
        test_set: Folder in BEIR layout.
        target: ``export.json``; not written when the comparison fails.
        samples: Texts to compare, queries and passages together.
        limits: ``cosine``, ``agreement`` and ``ndcg_drop`` by precision of the graph (``fp32``, ``fp16``).
        figure: ``svg``, ``png`` and ``csv`` of the figure.
        attention: Attention of the PyTorch side; kernels that need a GPU are replaced by ``sdpa``.
        plan: The TensorRT plan, which is listed but not run here.

    Raises:
        UserError: The export is further from PyTorch than its limits allow, or the two contracts differ.
    """
    reference, _ = open_checkpoint(checkpoint, attention if attention == "eager" else "sdpa")
    onnx = open_encoder(exported)
    if not isinstance(onnx, OnnxEncoder):
        raise UserError(f"{exported} is not the contract of an ONNX export.")
    different = reference.contract.same_meaning(onnx.contract)
    if different:
        raise UserError(f"{exported} differs from {checkpoint} in {', '.join(different)}. Delete it and run again.")
    folder = Path(exported).parent
    graph = graph_facts(folder / "model.onnx")
    parity = compare(reference, onnx, subset(read_beir(test_set), samples), limits, graph["dtype"], figure)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()] + ([Path(plan)] if plan else [])
    write_json(
        target,
        {
            "files": {
                os.path.relpath(path, Path(target).parent): {
                    "bytes": path.stat().st_size,
                    "sha256": sha256_file(path),
                }
                for path in files
            },
            **graph,
            "parity": {**parity, "test_set": str(test_set)},
            "tensorrt": plan is not None,
            "contract": dataclasses.asdict(onnx.contract),
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxruntime")},
        },
    )


def compare(
    reference: TorchEncoder,
    exported: OnnxEncoder,
    collection: TestSet,
    limits: dict[str, dict[str, float]],
    precision: str,
    figure: dict[str, Path] | None,
) -> dict[str, Any]:
    """The comparison of both encoders on a collection, with the limits it was held to.

    Raises:
        UserError: It is beyond them, a vector has another length, or ``dimensions`` cuts wrongly.
    """
    ours, theirs = Measured.of(exported, collection), Measured.of(reference, collection)
    facts = ours.against(theirs, collection)
    found = ours.cosines(theirs)
    values = {"query": found[: len(ours.queries)], "passage": found[len(ours.queries) :]}
    log.info(
        "%d queries, %d passages: cosine min %.6f, mean %.6f; %.1f %% of the ten best alike; nDCG@10 %+.4f",
        *(facts["queries"], facts["passages"], facts["cosine"]["min"], facts["cosine"]["mean"]),
        *(100 * facts["top_10_agreement"], facts["ndcg_difference"]),
    )
    if figure:
        write_figure(values, facts, limits[precision]["cosine"], figure)
    texts = [*collection.queries.values(), *collection.corpus.values()]
    wrong = problems(facts, limits[precision], f"export.parity.{precision}")
    if wrong:
        worst = int(np.argmin(found))
        raise UserError(
            f"the export fails the parity check (farthest: {texts[worst][:60]!r}):\n  - "
            + "\n  - ".join(wrong)
            + "\nTry export.export_dtype=fp32, export.attn_implementation=eager or another export.opset; lower a limit "
            "only if you accept such vectors."
        )
    both: list[tuple[Side, np.ndarray, np.ndarray, list[str]]] = [
        ("query", ours.queries, theirs.queries, list(collection.queries.values())),
        ("passage", ours.passages, theirs.passages, list(collection.corpus.values())),
    ]
    for side, mine, other, given in both:
        check_lengths(mine, other, [f"{side} {text[:60]!r}" for text in given])
        check_dimensions(exported, other, given, side, limits[precision]["cosine"])
    return {
        "min_cosine": facts["cosine"]["min"],
        "mean_cosine": facts["cosine"]["mean"],
        "samples": len(texts),
        "precision": precision,
        "required": limits[precision],
        **{key: value for key, value in facts.items() if "speed" not in key and "second" not in key},
    }


def check_dimensions(exported: OnnxEncoder, whole: np.ndarray, texts: list[str], side: Side, min_cosine: float) -> None:
    """Check the input ``dimensions``, with another number in each row of one batch, against cuts of PyTorch's vectors.

    A graph without that input has nothing to check.
    """
    if not exported.has_dimensions:
        return
    width = whole.shape[1]
    rows = np.linspace(0, len(texts) - 1, min(len(texts), 4)).astype(int)
    # not below 16: over a few values rounding alone turns a vector
    dimensions = np.maximum(min(16, width), width // 2 ** np.arange(len(rows)))
    ours = exported.forward(*pad(exported.tokenize([texts[row] for row in rows], side)), dimensions)
    theirs = whole[rows] * (np.arange(width) < dimensions[:, None])
    if exported.contract.l2_normalize:
        theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    names = [f"{side} {texts[row][:60]!r} at {size} dimensions" for row, size in zip(rows, dimensions, strict=True)]
    found = cosines(ours, theirs)
    worst = int(np.argmin(found))
    if found[worst] < min_cosine:
        raise UserError(
            f"the export fails the parity check: cosine {found[worst]:.6f} to the cut of PyTorch's vector for "
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


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        export(
            snakemake.input.checkpoint,  # noqa: F821
            snakemake.input.exported,  # noqa: F821
            Path(snakemake.input.corpus).parent,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            samples=snakemake.params.options["parity_samples"],  # noqa: F821
            limits=snakemake.params.options["parity"],  # noqa: F821
            figure={kind: Path(snakemake.output[kind]) for kind in ("svg", "png", "csv")},  # noqa: F821
            attention=snakemake.config["model"]["attn_implementation"],  # noqa: F821
            plan=snakemake.input.plan or None,  # noqa: F821
        )
