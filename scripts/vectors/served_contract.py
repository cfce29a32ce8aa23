"""The contract of a served model: what it is asked for, and a fingerprint of what it answers."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from scripts.common.contract import Contract
from scripts.common.endpoint_encoder import EndpointEncoder
from scripts.common.job import job, log

PROBES = ("a short question?", "A passage about the way a service answers, long enough to be told from others.")


def served_contract(
    base_file: str | Path, target: str | Path, *, served: dict[str, Any], allowed: list[str]
) -> Contract:
    """Write the contract of a served model, keyed by its answers to fixed probes, which tell it from other models.

    Args:
        base_file: The base model's contract: prefixes and lengths of this workflow.
        target: The file.
        served: The ``eval`` options ``nim_url``, ``nim_model``, ``nim_api_key_env``, ``embedding_api_backend``.
        allowed: Hosts that text may go to.
    """
    base = Contract.load(base_file)
    asked = dataclasses.replace(
        base,
        model=served["nim_model"],
        url=served["nim_url"],
        revision=None,
        backend=served["embedding_api_backend"],
        dimension=0,
    )
    probe = EndpointEncoder(asked, allowed=allowed, key_variable=served["nim_api_key_env"])
    vectors = probe.request(list(PROBES), "passage")
    facts = f"{served['nim_model']}\n{vectors.round(3).tolist()}"
    contract = dataclasses.replace(
        asked, dimension=vectors.shape[1], weights_sha256=hashlib.sha256(facts.encode()).hexdigest()
    )
    contract.save(target)
    log.info("%s at %s: %d dimensions", contract.model, contract.url, contract.dimension)
    return contract


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        served_contract(
            snakemake.input.base,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            served=snakemake.params.served,  # noqa: F821
            allowed=snakemake.config["allow_egress"],  # noqa: F821
        )
