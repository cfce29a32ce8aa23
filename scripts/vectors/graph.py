"""A model's ONNX graph for encoding on a CPU: fused, and with int8 weights where that is asked for.

The graph lies in ``<output_dir>/cache/graphs``, by what determines it, never beside a checkpoint. Its contract names it
as its model, so it is opened like an export, and its vectors have a key of their own in the store: another precision
never mixes with what PyTorch computed.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from scripts.common.contract import Contract, Side, weights_digest
from scripts.common.encoder import TorchEncoder, open_encoder
from scripts.common.errors import UserError
from scripts.common.files import atomic_folder
from scripts.common.job import job, log
from scripts.common.models import resolve_model
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.common.tokens import tokenizer_file

OPSET = 17
# Lowest cosine to PyTorch's vectors of the texts below
LEAST_COSINE = {"onnx": 0.9999, "onnx_int8": 0.95}
PROBES = (
    "tax",
    "How is the boundary layer of a wing measured at low speed?",
    "A passage with numbers (3.14, 1e-5), names like os.path.join and punctuation; then a list: one, two, three.",
    "Ünïcode, 日本語 and emoji 🙂 are text too.",
    "The quick brown fox jumps over the lazy dog. " * 12,
)


def graph_contract(contract_file: str | Path, target: str | Path, *, backend: str, cache: str | Path) -> Contract:
    """Make the graph of a model unless the cache has it, and write the contract that encodes with it.

    Args:
        contract_file: The model's contract, of back end ``torch``.
        target: The new contract.
        backend: ``onnx`` (float32, fused) or ``onnx_int8`` (fused, int8 weights by channel, dynamic activations).
        cache: Folder of all graphs.

    Raises:
        UserError: The model cannot be exported, or its graph gives other vectors than PyTorch.
    """
    contract, target = Contract.load(contract_file), Path(target)
    if contract.backend != "torch":
        raise UserError(f"{contract_file} is not a PyTorch model's contract; vectors.backend converts only those.")
    folder = Path(cache, graph_key(contract, backend))
    found = sound_graph(folder)
    if found is None:
        make_graph(contract_file, folder, backend)
        found = sound_graph(folder)
        if found is None:
            raise UserError(f"{folder} is damaged right after it was written; is the disk full or faulty?")
    else:
        log.info("graph %s is there", folder)
    written = dataclasses.replace(found, model=os.path.relpath(folder, target.parent))
    written.save(target)
    return written


def graph_key(contract: Contract, backend: str) -> str:
    """Digest of all that decides the graph: model, pooling, precision, and the libraries that write it."""
    import onnxruntime
    import torch
    import transformers

    facts = (
        *(contract.weights_sha256, contract.pooling, contract.l2_normalize, backend, OPSET),
        *(contract.query_prefix, contract.passage_prefix, contract.query_max_length, contract.passage_max_length),
        *(torch.__version__, transformers.__version__, onnxruntime.__version__),
    )
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def sound_graph(folder: Path) -> Contract | None:
    """The contract of a cached graph, or ``None`` when it is missing or its files are not those it was written with."""
    try:
        contract = Contract.load(folder / "contract.json")
        return contract if weights_digest(folder) == contract.weights_sha256 else None
    except UserError:
        return None


def make_graph(contract_file: str | Path, folder: Path, backend: str) -> None:
    """Export, fuse and, for int8, quantise a model into ``folder``, which appears whole."""
    from scripts.common.onnx_graph import EmbeddingGraph, write_graph
    from scripts.common.onnx_variants import cosines, fuse, quantize_dynamic

    # eager: the optimizer recognises no other way of writing attention
    encoder = open_encoder(contract_file, device="cpu", attention="eager")
    if not isinstance(encoder, TorchEncoder):
        raise UserError(f"{contract_file} is not a PyTorch model's contract; vectors.backend converts only those.")
    contract = encoder.contract
    model_folder = resolve_model(contract.model, contract.revision, relative_to=Path(contract_file).parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # two jobs may make the same graph at once; whoever is last wins, with the same content
    with tempfile.TemporaryDirectory(prefix=".traced.", dir=folder.parent) as scratch, atomic_folder(folder) as work:
        traced = Path(scratch)
        for made in (traced, work):
            shutil.copyfile(model_folder / "config.json", made / "config.json")
        shutil.copyfile(tokenizer_file(model_folder), work / "tokenizer.json")
        write_graph(EmbeddingGraph(encoder.model, contract), traced / "model.onnx", opset=OPSET, use_dimensions=False)
        if backend == "onnx":
            fuse(traced / "model.onnx", work / "model.onnx")
        else:
            fuse(traced / "model.onnx", traced / "fused.onnx")
            quantize_dynamic(traced / "fused.onnx", work / "model.onnx")
        found = contract.of_graph(work)
        found.save(work / "contract.json")
        sides: tuple[Side, Side] = ("query", "passage")
        converted = OnnxEncoder(found, work)
        least = min(
            float(cosines(converted.encode(PROBES, side), encoder.encode(PROBES, side)).min()) for side in sides
        )
        log.info("graph %s: cosine to PyTorch at least %.6f on %d texts", folder.name, least, len(PROBES))
        if not least >= LEAST_COSINE[backend]:
            raise UserError(
                f"vectors.backend={backend}: this model's graph gives other vectors than PyTorch (cosine {least:.4f}, "
                f"least allowed {LEAST_COSINE[backend]}). Use vectors.backend=torch."
            )


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        graph_contract(
            snakemake.input.contract,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            backend=snakemake.wildcards.backend,  # noqa: F821
            cache=f"{snakemake.config['output_dir']}/cache/graphs",  # noqa: F821
        )
