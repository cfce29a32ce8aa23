"""The index of the main job's corpus, loaded into a vector database."""

from pathlib import Path

import pytest

from scripts.common.contract import Contract
from scripts.vectors.index import open_index
from tests.workflow.conftest import Workspace

pytestmark = pytest.mark.slow


def test_reindex_writes_files_once_and_loads_them_every_time(workspace: Workspace, tmp_path: Path) -> None:
    changed = workspace.with_config(index__database="qdrant", index__url=str(tmp_path / "qdrant"))
    changed.snakemake("reindex")
    folder = workspace.output / "stage2_finetune/checkpoints/LATEST/model/consolidated"
    index, ids = open_index(workspace.output / "index", Contract.load(folder / "contract.json"))
    assert index.ntotal == len(ids) > 30
    # the files are there; only the loading runs again, which changes nothing
    assert changed.jobs("reindex") == {"reindex": 1}
    assert workspace.with_config(index__faiss_factory="HNSW8").jobs("reindex") == {"index": 1, "reindex": 1}
