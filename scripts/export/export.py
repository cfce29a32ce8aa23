"""The parity gate: the exported graph gives the vectors that PyTorch gives, on real texts, or the stage fails."""

import dataclasses
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import TestSet, read_beir
from scripts.common.contract import Side
from scripts.common.encoder import open_encoder
from scripts.common.errors import UserError
from scripts.common.files import sha256_file, write_json
from scripts.common.job import job, log
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.export.export_onnx import open_checkpoint
from scripts.export.figure import write_figure
from scripts.export.loader_encoder import LoaderEncoder
from scripts.export.parity import Measured, check_dimensions, check_lengths, graph_facts, problems, subset
from scripts.export.sentence_transformers_files import FOLDER as LOADERS


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

    The graph for other loaders, where there is one, is compared too, pooled as they do.

    Args:
        checkpoint: The checkpoint's contract.
        exported: The export's contract.
        test_set: Folder in BEIR layout.
        target: ``export.json``; not written when the comparison fails.
        samples: Texts to compare, queries and passages together.
        limits: ``cosine``, ``agreement`` and ``ndcg_drop`` by precision of the graph (``fp32``, ``fp16``).
        figure: ``svg``, ``png`` and ``csv`` of the figure.
        attention: Attention of the PyTorch side; kernels that need a GPU are replaced by ``sdpa``.
        plan: The TensorRT plan, which is listed but not run here: its vectors are not compared.

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
    collection = subset(read_beir(test_set), samples)
    theirs = Measured.of(reference, collection)
    parity = compare(onnx, theirs, collection, limits, graph["dtype"], figure)
    if (folder / LOADERS / "model.onnx").is_file():
        loaded = LoaderEncoder(onnx.contract, folder / LOADERS)
        parity["loaders"] = compare(loaded, theirs, collection, limits, graph["dtype"])
    if plan:
        log.warning(
            "the TensorRT plan is not compared with PyTorch here; `snakemake verify` does so with what serves it"
        )
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
            "tensorrt": {"plan": plan is not None, "compared": False},
            "contract": dataclasses.asdict(onnx.contract),
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxruntime")},
        },
    )


def compare(
    exported: OnnxEncoder,
    theirs: Measured,
    collection: TestSet,
    limits: dict[str, dict[str, float]],
    precision: str,
    figure: dict[str, Path] | None = None,
) -> dict[str, Any]:
    """The comparison of an exported graph with PyTorch's vectors of a collection, with the limits it was held to.

    Raises:
        UserError: It is beyond them, a vector has another length, or ``dimensions`` cuts wrongly. The figure then lies
            in the folder ``refused`` beside its targets.
    """
    ours = Measured.of(exported, collection)
    facts = ours.against(theirs, collection)
    found = ours.cosines(theirs)
    values = {"query": found[: len(ours.queries)], "passage": found[len(ours.queries) :]}
    log.info(
        "%d queries, %d passages: cosine min %.6f, mean %.6f; %.1f %% of the ten best alike; nDCG@10 %+.4f",
        *(facts["queries"], facts["passages"], facts["cosine"]["min"], facts["cosine"]["mean"]),
        *(100 * facts["top_10_agreement"], facts["ndcg_difference"]),
    )
    try:
        _check(exported, (ours, theirs), collection, facts, limits[precision], precision)
    except UserError as error:
        if not figure:
            raise
        # Snakemake deletes the outputs of a failed job
        kept = {kind: path.parent / "refused" / path.name for kind, path in figure.items()}
        write_figure(values, facts, limits[precision]["cosine"], kept)
        raise UserError(f"{error}\nHow far which texts are: {kept['svg']} and {kept['csv']}.") from None
    if figure:
        write_figure(values, facts, limits[precision]["cosine"], figure)
    return {
        "min_cosine": facts["cosine"]["min"],
        "mean_cosine": facts["cosine"]["mean"],
        "samples": len(found),
        "precision": precision,
        "required": limits[precision],
        **{key: value for key, value in facts.items() if "speed" not in key and "second" not in key},
    }


def _check(
    exported: OnnxEncoder,
    measured: tuple[Measured, Measured],
    collection: TestSet,
    facts: dict[str, Any],
    limits: dict[str, float],
    precision: str,
) -> None:
    """:class:`UserError` with all that is wrong with the export's vectors (``measured[0]``) beside PyTorch's."""
    ours, theirs = measured
    wrong = problems(facts, limits, f"export.parity.{precision}")
    if wrong:
        texts = [*collection.queries.values(), *collection.corpus.values()]
        worst = texts[int(np.argmin(ours.cosines(theirs)))]
        raise UserError(
            f"{exported.folder} fails the parity check (farthest: {worst[:60]!r}):\n  - "
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
        check_dimensions(exported, given, side, limits["cosine"], whole=other)


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
