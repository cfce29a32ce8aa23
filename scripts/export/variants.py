"""Smaller and faster variants of the export, each a folder to serve, and what each costs in quality."""

import dataclasses
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import TestSet, read_beir
from scripts.common.contract import Contract, weights_digest
from scripts.common.encoder import Encoder, open_encoder, pad
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.job import job, log
from scripts.common.metrics import evaluate_run
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.common.onnx_variants import (
    Batch,
    cosine_facts,
    cosines,
    fuse,
    quantize_dynamic,
    quantize_static,
    size_on_disk,
    to_half,
)
from scripts.common.search import as_run, top_k
from scripts.export.samples import spread

TOP = 10
RESAMPLES = 2000
# Fixed scales settle with a few hundred texts; more cost minutes and memory
CALIBRATION_TEXTS = 128
CALIBRATION_BATCH = 8


def write_variants(
    exported: str | Path, checkpoint: str | Path, test_set: str | Path, target: str | Path, *, limits: dict[str, float]
) -> None:
    """Write ``target/{variant}/`` for each variant, and ``target/variants.json`` with quality, speed and size.

    Args:
        exported: Contract of the fp32 export.
        checkpoint: The checkpoint's contract.
        test_set: Folder in BEIR layout; all of it is embedded by every variant.
        target: Folder, replaced when it is there.
        limits: Variant (``fused``, ``fp16``, ``int8``, ``int8_static``) to the lowest cosine allowed.

    Raises:
        UserError: A variant is below its limit, or the export is not fp32.
    """
    collection = read_beir(test_set)
    reference = Measured.of(open_encoder(checkpoint, device="cpu"), collection)
    source, target = Path(exported).parent, Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    table: dict[str, dict[str, Any]] = {"pytorch": {"texts_per_second": reference.speed}}
    with tempfile.TemporaryDirectory(prefix=".variants.", dir=target.parent) as scratch:
        work = Path(scratch, "new")
        for name in ("fp32", *limits):
            folder = source
            if name != "fp32":
                folder = work / name
                make(name, source, folder, calibration(exported, collection) if name == "int8_static" else [])
            measured = Measured.of(open_encoder(folder / "contract.json"), collection)
            table[name] = {"bytes": size_on_disk(folder / "model.onnx"), **measured.against(reference, collection)}
            log.info("%s: %s", name, table[name])
            if not table[name]["cosine"]["min"] >= limits.get(name, 0):
                raise UserError(
                    f"variant {name} has cosine {table[name]['cosine']['min']:.4f} to PyTorch's vectors at worst, but "
                    f"export.variants.{name} is {limits[name]}. Leave this variant out, or lower the limit if its nDCG "
                    f"difference of {table[name]['ndcg_difference']:+.4f} is acceptable."
                )
        write_json(work / "variants.json", {"test_set": str(test_set), "limits": limits, "variants": table})
        if target.exists():
            target.rename(Path(scratch, "old"))
        work.rename(target)


def make(name: str, source: Path, folder: Path, batches: list[Batch]) -> None:
    """Write one variant of the export in ``source`` as a folder of its own, contract included."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.onnx*", "contract.json"))
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
    encoder = open_encoder(exported)
    if not isinstance(encoder, OnnxEncoder):
        raise UserError(f"{exported} is not the contract of an ONNX export.")
    texts = spread([text for text in collection.corpus.values() if text.strip()], CALIBRATION_TEXTS)
    rows = encoder.tokenize(texts, "passage")
    return [pad(rows[start : start + CALIBRATION_BATCH]) for start in range(0, len(rows), CALIBRATION_BATCH)]


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

    def search(self, collection: TestSet) -> tuple[list[set[str]], np.ndarray]:
        """Each query's ten best passages and its nDCG@10."""
        found = top_k(self.queries, self.passages, TOP)
        run = as_run(list(collection.queries), list(collection.corpus), *found)
        scores = evaluate_run(collection.qrels, run, [TOP])
        return [set(run[query]) for query in collection.queries], np.array(
            [scores[query][f"NDCG@{TOP}"] for query in collection.queries]
        )

    def against(self, reference: "Measured", collection: TestSet) -> dict[str, Any]:
        """Cosines, agreement of the ten best, nDCG difference with its 95 % bootstrap interval, and speed."""
        values = np.concatenate([cosines(self.queries, reference.queries), cosines(self.passages, reference.passages)])
        (ours, scores), (theirs, expected) = self.search(collection), reference.search(collection)
        agreement = np.mean([len(a & b) / max(1, len(b)) for a, b in zip(ours, theirs, strict=True)])
        low, high = bootstrap(scores - expected)
        return {
            "cosine": cosine_facts(values),
            "top_10_agreement": float(agreement),
            "ndcg": float(scores.mean()),
            "ndcg_difference": float((scores - expected).mean()),
            "ndcg_difference_interval": [low, high],
            "texts_per_second": self.speed,
            "speed_against_pytorch": round(self.speed / reference.speed, 2),
        }


def bootstrap(differences: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of a mean of paired differences (Efron and Tibshirani 1993)."""
    rng = np.random.default_rng(0)
    means = [rng.choice(differences, len(differences)).mean() for _ in range(RESAMPLES)]
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        write_variants(
            snakemake.input.exported,  # noqa: F821
            snakemake.input.checkpoint,  # noqa: F821
            Path(snakemake.input.corpus).parent,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            limits=snakemake.params.limits,  # noqa: F821
        )
