"""The folder ``sentence_transformers/`` of an export: a graph up to the token states, and how they become a vector.

sentence-transformers (``backend="onnx"``), optimum and text-embeddings-inference pool and normalise themselves, so they
need a graph that ends before. It has a folder of its own, because optimum takes any ``model.onnx`` below the one it is
given. The files are in the form that all versions of sentence-transformers read.
"""

import shutil
from pathlib import Path
from typing import Any

from scripts.common.contract import LEGACY_POOLINGS, POOLINGS, Contract, join_prefix
from scripts.common.files import write_json

FOLDER = "sentence_transformers"
# Names of the steps' classes since version 2; later versions know them still
MODULES = "sentence_transformers.models"


def write_loader_folder(model: Any, contract: Contract, exported: Path, *, opset: int) -> None:
    """Write the folder into an exported one.

    A loader has one longest text for both sides: the longer of the contract's two.

    Args:
        model: The transformer.
        contract: Its contract.
        exported: The exported folder, with ``tokenizer/`` and ``config.json``.
        opset: ONNX opset.
    """
    from scripts.common.onnx_graph import TokenGraph, write_graph

    folder = exported / FOLDER
    shutil.copytree(exported / "tokenizer", folder)
    shutil.copyfile(exported / "config.json", folder / "config.json")
    write_graph(TokenGraph(model), folder / "model.onnx", opset=opset, use_dimensions=False)
    steps = ["Transformer", "Pooling", *(["Normalize"] if contract.l2_normalize else [])]
    modules = [
        {"idx": number, "name": str(number), "path": f"{number}_{name}" if number else "", "type": f"{MODULES}.{name}"}
        for number, name in enumerate(steps)
    ]
    write_json(folder / "modules.json", modules)
    mode = {ours: theirs for theirs, ours in POOLINGS.items()}[contract.pooling]
    pooling = {f"pooling_mode_{key}": value == mode for key, value in LEGACY_POOLINGS.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": contract.dimension, **pooling})
    if contract.l2_normalize:
        write_json(folder / "2_Normalize" / "config.json", {})
    longest = max(contract.query_max_length, contract.passage_max_length)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    prompts = {"query": join_prefix(contract.query_prefix), "document": join_prefix(contract.passage_prefix)}
    similarity = "cosine" if contract.l2_normalize else "dot"
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": similarity},
    )
