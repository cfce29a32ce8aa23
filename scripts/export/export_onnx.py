"""A checkpoint as ONNX: pooling and normalisation in the graph, tokenizer and contract beside it."""

import os
import shutil
from pathlib import Path

from scripts.common.contract import Contract
from scripts.common.encoder import TorchEncoder, open_encoder
from scripts.common.errors import UserError
from scripts.common.files import atomic_folder
from scripts.common.job import job, log
from scripts.common.models import resolve_model
from scripts.export.sentence_transformers_files import write_loader_folder


def export_onnx(
    contract_file: str | Path,
    target: str | Path,
    *,
    opset: int,
    dtype: str,
    attention: str,
    use_dimensions: bool,
    for_loaders: bool = False,
) -> Contract:
    """Write a folder with ``model.onnx`` and all that a server needs; it appears whole.

    Args:
        contract_file: The checkpoint's ``contract.json``.
        target: The folder, replaced when it is there.
        opset: ONNX opset.
        dtype: ``fp32`` or ``fp16`` weights; vectors are float32 either way.
        attention: Attention written into the graph, ``eager`` or ``sdpa``.
        use_dimensions: Whether the graph has the input ``dimensions``.
        for_loaders: Whether the folder is to work in sentence-transformers, optimum and text-embeddings-inference too,
            which takes a second graph.

    Returns:
        The contract of the export.

    Raises:
        UserError: The model is missing, is not the contract's, or cannot be exported.
    """
    from scripts.common.onnx_graph import EmbeddingGraph, write_graph

    if dtype == "fp16" and attention == "sdpa":
        raise UserError(
            "PyTorch writes sdpa attention in half precision with mixed types, which no runtime loads. "
            "Set export.attn_implementation=eager, or export.export_dtype=fp32."
        )
    encoder, folder = open_checkpoint(contract_file, attention)
    graph = EmbeddingGraph(encoder.model.half() if dtype == "fp16" else encoder.model, encoder.contract)
    target = Path(target)
    with atomic_folder(target) as work:
        write_graph(graph, work / "model.onnx", opset=opset, use_dimensions=use_dimensions)
        copy_tokenizer(folder, work)
        shutil.copyfile(folder / "config.json", work / "config.json")
        if for_loaders:
            write_loader_folder(graph.model, encoder.contract, work, opset=opset)
        contract = encoder.contract.of_graph(work)
        contract.save(work / "contract.json")
        open_encoder(work / "contract.json")
    size = sum(path.stat().st_size for path in target.glob("model.onnx*"))
    log.info("%s: %.0f MB, opset %d, %s, %s attention", target / "model.onnx", size / 1e6, opset, dtype, attention)
    return contract


def open_checkpoint(contract_file: str | Path, attention: str) -> tuple[TorchEncoder, Path]:
    """The PyTorch encoder of a checkpoint, on the CPU in float32, and its folder."""
    encoder = open_encoder(contract_file, device="cpu", attention=attention)
    if not isinstance(encoder, TorchEncoder):
        raise UserError(
            f"{contract_file} is the contract of an export, not of a checkpoint. Set export.model_path to the folder "
            "with model.safetensors."
        )
    contract = encoder.contract
    return encoder, resolve_model(contract.model, contract.revision, relative_to=Path(contract_file).parent)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a model's tokenizer files to ``tokenizer/`` below ``target`` (as the recipe), the main one to the top."""
    (target / "tokenizer").mkdir()
    for path in sorted(source.iterdir()):
        if path.is_file() and ("token" in path.name or path.name in {"vocab.txt", "vocab.json", "merges.txt"}):
            shutil.copyfile(path, target / "tokenizer" / path.name)
    shutil.copyfile(target / "tokenizer" / "tokenizer.json", target / "tokenizer.json")


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        export_onnx(
            snakemake.input.contract,  # noqa: F821
            os.path.dirname(snakemake.output.model),  # noqa: F821
            opset=snakemake.params.options["opset"],  # noqa: F821
            dtype=snakemake.params.options["export_dtype"],  # noqa: F821
            attention=snakemake.params.options["attn_implementation"],  # noqa: F821
            use_dimensions=snakemake.params.options["use_dimension_arg"],  # noqa: F821
            for_loaders=snakemake.params.options["for_loaders"],  # noqa: F821
        )
