"""The parity gate: the exported graph gives the vectors that PyTorch gives, on real texts, or the stage fails."""

import collections
import dataclasses
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.contract import Side
from scripts.common.encoder import TorchEncoder, open_encoder, pad
from scripts.common.errors import UserError
from scripts.common.files import sha256_file, write_json
from scripts.common.job import job, log
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.export.export_onnx import open_checkpoint
from scripts.export.samples import sample_texts

# Lengths may differ this much: cosines do not see a graph that forgot to normalise
LENGTH_TOLERANCE = 0.01


def export(
    checkpoint: str | Path,
    exported: str | Path,
    test_set: str | Path,
    target: str | Path,
    *,
    samples: int,
    min_cosine: float,
    attention: str | None = None,
    plan: str | Path | None = None,
) -> None:
    """Compare both models on texts of the test set and write ``export.json``.

    Args:
        checkpoint: The checkpoint's contract.
        exported: The export's contract.
        test_set: Folder in BEIR layout.
        target: ``export.json``; not written when the comparison fails.
        samples: Texts to compare, queries and passages together.
        min_cosine: Lowest cosine allowed.
        attention: Attention of the PyTorch side; kernels that need a GPU are replaced by ``sdpa``.
        plan: The TensorRT plan, which is listed but not run here.

    Raises:
        UserError: A vector of the export is too far from PyTorch's, or the two contracts differ.
    """
    reference, _ = open_checkpoint(checkpoint, attention if attention == "eager" else "sdpa")
    onnx = open_encoder(exported)
    if not isinstance(onnx, OnnxEncoder):
        raise UserError(f"{exported} is not the contract of an ONNX export.")
    different = reference.contract.same_meaning(onnx.contract)
    if different:
        raise UserError(f"{exported} differs from {checkpoint} in {', '.join(different)}. Delete it and run again.")
    cosines = parity(reference, onnx, test_set, samples, min_cosine)
    folder = Path(exported).parent
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
            **graph_facts(folder / "model.onnx"),
            "parity": {
                "min_cosine": float(cosines.min()),
                "mean_cosine": float(cosines.mean()),
                "samples": len(cosines),
                "required": min_cosine,
                "test_set": str(test_set),
            },
            "tensorrt": plan is not None,
            "contract": dataclasses.asdict(onnx.contract),
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxruntime")},
        },
    )


def parity(
    reference: TorchEncoder, exported: OnnxEncoder, test_set: str | Path, samples: int, min_cosine: float
) -> np.ndarray:
    """Cosines between the two encoders' vectors, one a text.

    Raises:
        UserError: One is below ``min_cosine`` or no number, a length differs, or ``dimensions`` cuts wrongly.
    """
    cosines: list[np.ndarray] = []
    for side, texts in sample_texts(test_set, samples).items():
        if not texts:
            continue
        ours, theirs = exported.encode(texts, side), reference.encode(texts, side)
        found = check(ours, theirs, min_cosine, [f"{side} {text[:60]!r}" for text in texts])
        cosines.append(found)
        log.info("%d texts as %s: cosine min %.6f, mean %.6f", len(texts), side, found.min(), found.mean())
        check_dimensions(exported, theirs, texts, side, min_cosine)
    return np.concatenate(cosines)


def check(ours: np.ndarray, theirs: np.ndarray, min_cosine: float, names: list[str]) -> np.ndarray:
    """Cosines of the rows of two ``[texts, dimension]`` arrays; :class:`UserError` names the worst row that fails."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (ours * theirs).sum(axis=1) / (lengths[0] * lengths[1])
    worst = int(np.argmin(np.nan_to_num(cosines, nan=-1)))
    if not cosines[worst] >= min_cosine:
        raise UserError(
            f"the export fails the parity check: cosine {cosines[worst]:.6f} to PyTorch's vector for {names[worst]}, "
            f"but export.parity_min_cosine is {min_cosine}. Try export.export_dtype=fp32, "
            "export.attn_implementation=eager or another export.opset; lower the limit only if you accept such vectors."
        )
    ratio = lengths[0] / lengths[1]
    worst = int(np.argmax(np.abs(ratio - 1)))
    if abs(ratio[worst] - 1) > LENGTH_TOLERANCE:
        raise UserError(
            f"the export fails the parity check: the vector for {names[worst]} is {ratio[worst]:.4f} times as long as "
            "PyTorch's. Delete the export's folder and run again."
        )
    return cosines


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
    check(ours, theirs, min_cosine, names)


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
            min_cosine=snakemake.params.options["parity_min_cosine"],  # noqa: F821
            attention=snakemake.config["model"]["attn_implementation"],  # noqa: F821
            plan=snakemake.input.plan or None,  # noqa: F821
        )
