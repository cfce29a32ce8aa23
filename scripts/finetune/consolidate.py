"""A finished model folder: for sentence-transformers, for transformers, and with the contract beside the weights."""

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from scripts.common.contract import Contract, join_prefix, weights_digest
from scripts.common.files import link_or_copy, write_json, write_text

# sentence-transformers' names of the poolings
ST_POOLING = {"avg": "mean", "cls": "cls", "last": "lasttoken"}


def consolidate(model: torch.nn.Module, base_folder: Path, contract: Contract, target: Path, card: str) -> Contract:
    """Write weights, tokenizer, sentence-transformers files, contract and model card; the folder appears whole.

    Args:
        model: The transformer with its final weights.
        base_folder: Folder of the base model, for tokenizer and code files.
        contract: The base model's contract; the tuned model keeps all of it but the weights.
        target: The folder, replaced when it is there.
        card: Text of ``README.md``.

    Returns:
        The tuned model's contract.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".consolidated.", dir=target.parent))
    try:
        with tempfile.TemporaryDirectory() as plain:
            model.save_pretrained(plain)
            for path in sorted(base_folder.iterdir()):
                if path.suffix == ".py" or (
                    path.is_file() and ("token" in path.name or path.name in {"vocab.txt", "merges.txt"})
                ):
                    shutil.copyfile(path, Path(plain, path.name))
            modules: list[Any] = [
                Transformer(
                    plain,
                    max_seq_length=contract.passage_max_length,
                    model_kwargs={"trust_remote_code": contract.trust_remote_code},
                    config_kwargs={"trust_remote_code": contract.trust_remote_code},
                ),
                Pooling(contract.dimension, pooling_mode=ST_POOLING[contract.pooling]),
            ]
            if contract.l2_normalize:
                modules.append(Normalize())
            prompts = {"query": join_prefix(contract.query_prefix), "document": join_prefix(contract.passage_prefix)}
            SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save_pretrained(
                str(work), create_model_card=False
            )
            # the base model's own tokenizer files: saving them again may change how a text is cut
            for name in ("tokenizer.json", "vocab.txt", "special_tokens_map.json"):
                if (base_folder / name).is_file():
                    shutil.copyfile(base_folder / name, work / name)
        write_text(work / "README.md", card)
        tuned = dataclasses.replace(
            contract, model=".", revision=None, weights_sha256=weights_digest(work), backend="torch"
        )
        tuned.save(work / "contract.json")
        for path in work.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        work.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return tuned


def publish(
    checkpoints: Path,
    name: str,
    *,
    weights: Path | None,
    consolidated: Path | None,
    state: Path | None,
    config: dict[str, Any],
    losses: dict[str, float],
) -> Path:
    """Lay out ``checkpoints/<name>/`` as the recipe does; returns the folder.

    ``model/`` has the checkpoint's weights, ``model/consolidated/`` the finished model where the checkpoint was chosen,
    ``optim/`` the full training state. Files are hard links where that is possible: a checkpoint costs its space once.
    """
    folder = checkpoints / name
    if consolidated is not None:
        for path in consolidated.rglob("*"):
            if path.is_file():
                link_or_copy(path, folder / "model" / "consolidated" / path.relative_to(consolidated))
    if weights is not None and weights.is_file():
        link_or_copy(weights, folder / "model" / "model.safetensors")
    if state is not None and state.is_file():
        link_or_copy(state, folder / "optim" / "state.pt")
    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=True))
    write_json(folder / "losses.json", losses)
    return folder


def remove_checkpoints(checkpoints: Path) -> None:
    """Remove the checkpoints of an earlier run, so that none is taken for this one's (states: cache)."""
    for path in checkpoints.glob("epoch_*_step_*"):
        shutil.rmtree(path)


def point_latest(checkpoints: Path, folder: Path) -> None:
    """Make ``LATEST`` a link to a checkpoint; where links fail, a copy of it, since rules ask for files below it."""
    latest = checkpoints / "LATEST"
    if latest.is_symlink():
        latest.unlink()
    elif latest.exists():
        # Snakemake makes the folders of declared outputs before the job; nothing of value is in them
        shutil.rmtree(latest)
    try:
        os.symlink(folder.name, latest)
    except OSError:
        shutil.copytree(folder, latest)
