"""Write the base model's contract: what the configuration says, checked against what the model says of itself."""

from pathlib import Path
from typing import Any

from scripts.common.contract import Contract, check_against_folder, weights_digest
from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.job import job, log
from scripts.common.models import resolve_model


def write_contract(model: dict[str, Any], target: str | Path) -> Contract:
    """Write ``contract.json`` for a model that is not the workflow's own.

    Args:
        model: The ``model`` section of the configuration.
        target: The file.

    Raises:
        UserError: The model is missing, or contradicts the configuration.
    """
    folder = resolve_model(model["base_model"], model["revision"])
    check_against_folder(model, folder)
    path = Path(model["base_model"])
    contract = Contract(
        model=str(path.resolve()) if path.is_dir() else model["base_model"],
        revision=model["revision"],
        weights_sha256=weights_digest(folder),
        dimension=dimension(folder),
        pooling=model["pooling"],
        l2_normalize=model["l2_normalize"],
        query_prefix=model["query_prefix"],
        passage_prefix=model["passage_prefix"],
        query_max_length=model["query_max_length"],
        passage_max_length=model["passage_max_length"],
        trust_remote_code=model["trust_remote_code"],
    )
    contract.save(target)
    log.info("%s: %d dimensions, pooling %s", model["base_model"], contract.dimension, contract.pooling)
    return contract


def dimension(folder: Path) -> int:
    """Width of the model's token states."""
    config = read_json(folder / "config.json", "model configuration")
    for name in ("hidden_size", "dim", "d_model", "n_embd"):
        if isinstance(config.get(name), int):
            return config[name]
    raise UserError(f"{folder / 'config.json'} does not say the model's hidden_size.")


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        write_contract(snakemake.params.model, snakemake.output[0])  # noqa: F821
