"""Smaller and faster variants of the export, each a folder to serve, and what each costs in quality."""

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import TestSet, read_beir
from scripts.common.contract import Contract, Side, weights_digest
from scripts.common.encoder import open_encoder, pad
from scripts.common.errors import UserError
from scripts.common.files import atomic_folder, write_json
from scripts.common.job import job, log
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.common.onnx_variants import (
    Batch,
    fuse,
    quantize_dynamic,
    quantize_static,
    size_on_disk,
    to_half,
)
from scripts.export.parity import Measured, check_dimensions, check_lengths, graph_facts, problems
from scripts.export.samples import spread
from scripts.export.sentence_transformers_files import FOLDER as LOADERS
from scripts.export.variants_table import write_tables

# Whose limits a variant is held to; others have their own
PRECISION = {"fused": "fp32"}
# Fixed scales settle with a few hundred texts; more cost minutes and memory
CALIBRATION_TEXTS = 128
CALIBRATION_BATCH = 8
# Of a variant's vectors cut by its graph to its own, cut here
CUT_COSINE = 0.9999


def write_variants(
    exported: str | Path,
    checkpoint: str | Path,
    test_set: str | Path,
    target: str | Path,
    *,
    names: Sequence[str],
    limits: dict[str, dict[str, float]],
) -> None:
    """Write ``target/{variant}/`` for each variant, and what each costs in quality, speed and size.

    That is ``target/variants.json``, and ``variants.md``, ``.csv``, ``.svg`` and ``.png`` to read.

    Args:
        exported: Contract of the fp32 export.
        checkpoint: The checkpoint's contract.
        test_set: Folder in BEIR layout; all of it is embedded by every variant.
        target: Folder, replaced when it is there.
        names: Variants to make: ``fused``, ``fp16``, ``int8``, ``int8_static``.
        limits: ``cosine``, ``agreement`` and ``ndcg_drop`` by precision.

    Raises:
        UserError: A variant is beyond its limits, or the export is not fp32.
    """
    source = Path(exported).parent
    dtype = graph_facts(source / "model.onnx")["dtype"]
    if dtype != "fp32":
        raise UserError(f"variants are made from an fp32 graph, but {source} is {dtype}: set export.export_dtype=fp32.")
    collection = read_beir(test_set)
    reference = Measured.of(open_encoder(checkpoint, device="cpu"), collection)
    table: dict[str, dict[str, Any]] = {"pytorch": {"texts_per_second": reference.speed}}
    with atomic_folder(target) as work:
        for name in ("fp32", *names):
            folder = source
            if name != "fp32":
                folder = work / name
                make(name, source, folder, calibration(exported, collection) if name == "int8_static" else [])
            encoder = open_graph(folder / "contract.json")
            measured = Measured.of(encoder, collection)
            table[name] = {"bytes": size_on_disk(folder / "model.onnx"), **measured.against(reference, collection)}
            log.info("%s: %s", name, table[name])
            precision = PRECISION.get(name, name)
            wrong = problems(table[name], limits[precision], f"export.parity.{precision}")
            if wrong:
                raise UserError(
                    f"variant {name} is too far from PyTorch:\n  - "
                    + "\n  - ".join(wrong)
                    + "\nLeave it out of export.variants, or change the limit if you accept such vectors."
                )
            check_outputs(encoder, measured, reference, collection)
        write_tables(table, work)
        write_json(work / "variants.json", {"test_set": str(test_set), "limits": limits, "variants": table})


def check_outputs(encoder: OnnxEncoder, ours: Measured, theirs: Measured, collection: TestSet) -> None:
    """:class:`UserError` when vectors are not normalised, or the input ``dimensions`` cuts wrongly."""
    both: list[tuple[Side, list[str], np.ndarray, np.ndarray]] = [
        ("query", list(collection.queries.values()), ours.queries, theirs.queries),
        ("passage", list(collection.corpus.values()), ours.passages, theirs.passages),
    ]
    for side, texts, mine, other in both:
        # lengths that are part of a vector lose precision as its direction does
        if encoder.contract.l2_normalize:
            check_lengths(mine, other, [f"{side} {text[:60]!r}" for text in texts])
        check_dimensions(encoder, texts, side, CUT_COSINE)


def open_graph(contract_file: str | Path) -> OnnxEncoder:
    """The encoder of an exported graph."""
    encoder = open_encoder(contract_file)
    if not isinstance(encoder, OnnxEncoder):
        raise UserError(f"{contract_file} is not the contract of an ONNX export.")
    return encoder


def make(name: str, source: Path, folder: Path, batches: list[Batch]) -> None:
    """Write one variant of the export in ``source`` as a folder of its own, contract included."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.onnx*", "contract.json", LOADERS))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fused = folder / "model.onnx" if name == "fused" else Path(scratch, "fused.onnx")
        fuse(source / "model.onnx", fused)
        if name == "fp16":
            to_half(fused, folder / "model.onnx")
        elif name == "int8":
            quantize_dynamic(fused, folder / "model.onnx")
        elif name == "int8_static":
            quantize_static(fused, folder / "model.onnx", batches)
    contract = Contract.load(source / "contract.json")
    dataclasses.replace(contract, weights_sha256=weights_digest(folder)).save(folder / "contract.json")


def calibration(exported: str | Path, collection: TestSet) -> list[Batch]:
    """Padded passages of the user's own collection, of all lengths."""
    encoder = open_graph(exported)
    texts = spread([text for text in collection.corpus.values() if text.strip()], CALIBRATION_TEXTS)
    rows = encoder.tokenize(texts, "passage")
    return [pad(rows[start : start + CALIBRATION_BATCH]) for start in range(0, len(rows), CALIBRATION_BATCH)]


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        write_variants(
            snakemake.input.exported,  # noqa: F821
            snakemake.input.checkpoint,  # noqa: F821
            Path(snakemake.input.corpus).parent,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            names=snakemake.params.options["variants"],  # noqa: F821
            limits=snakemake.params.options["parity"],  # noqa: F821
        )
