"""Vectors of a set of texts under a model's contract; only texts without a vector in the store are encoded."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.common.contract import Contract, Side
from scripts.common.encoder import LocalEncoder, open_encoder
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.job import job, log
from scripts.common.progress import progress
from scripts.common.vector_store import VectorStore, text_key
from scripts.vectors.texts import read_texts


def embed(
    texts: Sequence[str],
    side: Side,
    contract_file: str | Path,
    target: str | Path,
    *,
    store_root: str | Path,
    device: str,
    token_budget: int,
    attention: str | None = None,
    endpoint: dict[str, Any] | None = None,
    dtype: str = "float32",
    num_gpus: int = 1,
) -> int:
    """Fill the store and say in ``target`` what is there; returns how many texts were encoded.

    Args:
        texts: The texts, without prefix.
        side: ``query`` or ``passage``.
        contract_file: The model's contract.
        target: Manifest (JSON): key of the store, side, number and digest of the texts.
        store_root: Folder of the stores.
        device: ``auto``, ``cpu`` or ``cuda``.
        token_budget: Tokens in a batch on a GPU.
        attention: Attention kernel, or ``None`` for the best there is.
        endpoint: How a served model is reached.
        dtype: Precision of stored vectors, ``float32`` or ``float16``.
        num_gpus: GPUs that compute side by side.
    """
    contract = Contract.load(contract_file)
    store = VectorStore(store_root, contract, side)
    missing = store.missing(texts, dtype)
    diagnostics: dict[str, int] = {}
    if missing:
        encoder = open_encoder(
            contract_file,
            device=device,
            token_budget=token_budget,
            attention=attention,
            endpoint=endpoint,
            num_gpus=num_gpus,
        )
        bar = progress(len(missing), f"embed {side}s", "text")
        with store.writer(dtype) as writer:
            for indices, rows in encoder.batches(missing, side):
                try:
                    writer.add([missing[i] for i in indices], rows)
                except ValueError as error:
                    raise UserError(f"{contract.model}: {error}; first text: {missing[indices[0]][:80]!r}") from error
                bar.update(len(indices))
        bar.close()
        if isinstance(encoder, LocalEncoder):
            # a padding token is an id and a mask value of 8 bytes each, and as much work as any other
            share, size = encoder.padding / max(1, encoder.padding + encoder.tokens), 16 * encoder.padding
            log.info("%d tokens and %.1f %% padding (%d bytes)", encoder.tokens, 100 * share, size)
        diagnostics = encoder.diagnostics()
    log.info("%d texts: %d encoded, %d found in the store", len(texts), len(missing), len(texts) - len(missing))
    keys = b"".join(sorted(map(text_key, texts)))
    write_json(
        target,
        {
            "store": contract.key(side),
            "side": side,
            "dimension": contract.dimension,
            "dtype": dtype,
            "count": len(texts),
            "texts_sha256": hashlib.sha256(keys).hexdigest(),
            **diagnostics,
        },
    )
    return len(missing)


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        embed(
            read_texts(snakemake.input.texts),  # noqa: F821
            snakemake.params.side,  # noqa: F821
            snakemake.input.contract,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            store_root=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
            device=snakemake.config["vectors"]["device"],  # noqa: F821
            token_budget=snakemake.config["vectors"]["token_budget"],  # noqa: F821
            attention=snakemake.config["model"]["attn_implementation"],  # noqa: F821
            dtype=snakemake.params.dtype,  # noqa: F821
            num_gpus=snakemake.config["vectors"]["num_gpus"],  # noqa: F821
            endpoint={
                "allowed": snakemake.config["allow_egress"],  # noqa: F821
                "key_variable": snakemake.config["eval"]["nim_api_key_env"],  # noqa: F821
                "batch_size": snakemake.config["eval"]["nim_batch_size"],  # noqa: F821
                "timeout": snakemake.config["eval"]["nim_timeout"],  # noqa: F821
            },
        )
