"""Does the running service do what the checkpoint does? All texts of the test sets go to it, its vectors are scored.

Vectors come fresh from the service and are not kept: it is the service that is looked at, not what it once said.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import TestSet, read_beir
from scripts.common.contract import Contract, Side
from scripts.common.endpoint_encoder import EndpointEncoder
from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json
from scripts.common.job import job, log
from scripts.common.onnx_variants import cosine_facts, cosines
from scripts.common.vector_store import VectorStore
from scripts.eval.eval import compare_served
from scripts.eval.evaluate import rank
from scripts.eval.results import read_result, score_and_write

SERVED, CHECKPOINT = "served", "finetuned"


def verify(
    record_file: str | Path,
    checkpoint: str | Path,
    test_sets: dict[str, tuple[str | Path, str | Path]],
    target: str | Path,
    *,
    k_values: list[int],
    gate: dict[str, float],
    store: str | Path,
    endpoint: dict[str, Any],
) -> dict[str, Any]:
    """Write ``verify.json``: metrics of the served model, their drift, and cosines to the checkpoint's vectors.

    Args:
        record_file: ``deployment.json``.
        checkpoint: The checkpoint's contract.
        test_sets: By name, a folder in BEIR layout and the checkpoint's evaluation on it.
        target: The file; each set's evaluation lies beside it.
        k_values: Cut-offs.
        gate: ``tolerance`` and ``low_k_tolerance`` of the metrics.
        store: Folder of the vector store with the checkpoint's vectors.
        endpoint: ``allowed``, ``batch_size`` and ``timeout``, see :class:`EndpointEncoder`.

    Raises:
        UserError: Nothing is deployed, it serves another contract, or its metrics drift beyond the tolerance.
    """
    record = read_record(record_file)
    contract = Contract.load(checkpoint)
    if record["contract"]:
        different = contract.same_meaning(Contract(**record["contract"]))
        if different:
            raise UserError(
                f"the service at {record['url']} differs from {checkpoint} in {', '.join(different)}. Deploy the "
                "present export: `snakemake deploy`."
            )
    backend = "vllm" if record["backend"] == "vllm" else "nim"
    served = dataclasses.replace(contract, model=record["model"], url=record["url"], revision=None, backend=backend)
    encoder = EndpointEncoder(served, key_variable=record["api_key_env"], **endpoint)
    results: dict[str, Any] = {"service": {name: record[name] for name in ("url", "model", "backend")}, "test_sets": {}}
    drifting = []
    for name, (folder, evaluation) in test_sets.items():
        collection = read_beir(folder)
        vectors: dict[Side, np.ndarray] = {
            "query": encoder.encode(list(collection.queries.values()), "query"),
            "passage": encoder.encode(list(collection.corpus.values()), "passage"),
        }
        own = Path(target).parent / "verify" / f"{name}.json"
        run = rank(collection, vectors["query"], vectors["passage"], max(k_values))
        scored = score_and_write(collection, run, own, system=SERVED, folder=folder, k_values=k_values)
        models = {CHECKPOINT: read_result(evaluation)["metrics"], SERVED: scored["metrics"]}
        drift = compare_served(models, {"served": SERVED, "fail": True, **gate})
        near = likeness(collection, vectors, contract, store)
        results["test_sets"][name] = {"metrics": scored["metrics"], "drift": drift, "cosine": near}
        log.info("%s: nDCG@10 and others within the tolerance: %s; cosines %s", name, _within(drift), near)
        if not _within(drift):
            drifting.append(name)
    results["verified"] = not drifting
    write_json(target, results)
    if drifting:
        raise UserError(
            f"the service at {record['url']} does not search as the checkpoint does ({', '.join(drifting)}), see "
            f"{target}. Is it an older model? `snakemake deploy` replaces it."
        )
    return results


def read_record(path: str | Path) -> dict[str, Any]:
    """``deployment.json`` of a service that is ready; :class:`UserError` when there is none."""
    if not Path(path).is_file():
        raise UserError(f"nothing is deployed ({path} does not exist). Run `snakemake deploy` first.")
    record = read_json(path, "deployment record")
    if record.get("schema_version") != 1 or record.get("state") != "ready":
        raise UserError(f"the service of {path} is not ready (state {record.get('state')}). Run `snakemake deploy`.")
    return record


def likeness(
    collection: TestSet, vectors: dict[Side, np.ndarray], contract: Contract, store: str | Path
) -> dict[str, dict[str, float]] | None:
    """Cosines to the checkpoint's stored vectors by side; ``None`` where the store has not all of them."""
    texts: dict[Side, list[str]] = {
        "query": list(collection.queries.values()),
        "passage": list(collection.corpus.values()),
    }
    try:
        return {
            side: cosine_facts(cosines(vectors[side], VectorStore(store, contract, side).gather(given)))
            for side, given in texts.items()
        }
    except UserError:
        return None


def _within(drift: dict[str, Any] | None) -> bool:
    return drift is not None and drift["within_tolerance"]


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        verify(
            snakemake.params.record,  # noqa: F821
            snakemake.input.checkpoint,  # noqa: F821
            {
                name: (folder, evaluation)
                for (name, folder), evaluation in zip(
                    snakemake.params.test_sets.items(),  # noqa: F821
                    snakemake.input.evaluations,  # noqa: F821
                    strict=True,
                )
            },
            Path(snakemake.params.record).with_name("verify.json"),  # noqa: F821
            k_values=snakemake.config["eval"]["k_values"],  # noqa: F821
            gate={
                "tolerance": snakemake.config["eval"]["nim_metric_tolerance"],  # noqa: F821
                "low_k_tolerance": snakemake.config["eval"]["nim_metric_low_k_tolerance"],  # noqa: F821
            },
            store=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
            endpoint={
                "allowed": snakemake.config["allow_egress"],  # noqa: F821
                "batch_size": snakemake.config["eval"]["nim_batch_size"],  # noqa: F821
                "timeout": snakemake.config["eval"]["nim_timeout"],  # noqa: F821
            },
        )
