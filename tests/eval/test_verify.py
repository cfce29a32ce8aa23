"""Verification of a running service against its checkpoint: real vectors over HTTP, drift, and what is not there."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.common.beir import read_beir
from scripts.common.contract import Contract
from scripts.common.encoder import open_encoder
from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json
from scripts.common.vector_store import VectorStore
from scripts.deploy.service import write_record
from scripts.eval.evaluate import evaluate
from scripts.eval.verify import verify
from tests.deploy.conftest import Server, exported, server

__all__ = ["exported", "server"]


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, collection_folder: Path, exported: Path, server: Server
) -> dict[str, Any]:
    """Arguments of :func:`verify` for a checkpoint that was evaluated and is served."""
    root = tmp_path_factory.mktemp("verify")
    contract, encoder = Contract.load(tiny_model / "contract.json"), open_encoder(tiny_model / "contract.json")
    found = read_beir(collection_folder)
    for side, texts in (("query", found.queries), ("passage", found.corpus)):
        VectorStore(root / "store", contract, side).complete(
            list(texts.values()), lambda missing, side=side: encoder.batches(missing, side)
        )
    evaluate(
        collection_folder,
        root / "set.json",
        model="finetuned",
        contract=contract,
        store=root / "store",
        k_values=[1, 10],
    )
    served = dataclasses.asdict(Contract.load(exported / "contract.json"))
    facts = {"backend": "onnx", "url": server.url, "model": "tiny", "api_key_env": None, "contract": served}
    write_record(root / "deployment.json", {"state": "ready", **facts}, str(root))
    return {
        "record_file": root / "deployment.json",
        "checkpoint": tiny_model / "contract.json",
        "test_sets": {"set": (collection_folder, root / "set.json")},
        "target": root / "verify.json",
        "k_values": [1, 10],
        "gate": {"tolerance": 0.01, "low_k_tolerance": 0.03},
        "store": root / "store",
        "endpoint": {"allowed": [], "batch_size": 32, "timeout": 60},
    }


def test_the_served_export_is_verified(deployed: dict[str, Any]) -> None:
    result = verify(**deployed)
    assert result == read_json(deployed["target"])
    assert result["verified"]
    found = result["test_sets"]["set"]
    assert min(found["cosine"][side]["min"] for side in ("query", "passage")) > 0.9999
    assert found["drift"]["deltas"]["NDCG"]["NDCG@10"]["delta"] == 0
    assert (deployed["target"].parent / "verify" / "set.trec").is_file()


def test_a_service_that_searches_otherwise_fails_and_the_file_says_how(
    deployed: dict[str, Any], tmp_path: Path, collection_folder: Path
) -> None:
    (_, evaluation) = deployed["test_sets"]["set"]
    value = read_json(evaluation)
    value["metrics"]["NDCG"]["NDCG@10"] -= 0.2
    write_json(tmp_path / "set.json", value)
    with pytest.raises(UserError, match="does not search as the checkpoint"):
        verify(
            **{
                **deployed,
                "test_sets": {"set": (collection_folder, tmp_path / "set.json")},
                "target": tmp_path / "v.json",
            }
        )
    assert read_json(tmp_path / "v.json")["verified"] is False


def test_another_contract_or_no_service_ends_before_text_is_sent(deployed: dict[str, Any], tmp_path: Path) -> None:
    record = json.loads(deployed["record_file"].read_text())
    write_json(tmp_path / "other.json", {**record, "contract": {**record["contract"], "query_prefix": "ask:"}})
    with pytest.raises(UserError, match="query_prefix"):
        verify(**{**deployed, "record_file": tmp_path / "other.json"})
    write_json(tmp_path / "starting.json", {**record, "state": "starting"})
    with pytest.raises(UserError, match="not ready"):
        verify(**{**deployed, "record_file": tmp_path / "starting.json"})
    with pytest.raises(UserError, match="nothing is deployed"):
        verify(**{**deployed, "record_file": tmp_path / "none.json"})
