"""Several trainings in one table, for real."""

import pytest

from tests.workflow.conftest import Workspace

pytestmark = pytest.mark.slow


def test_a_sweep_trains_each_combination_and_chooses_on_validation(workspace: Workspace) -> None:
    swept = workspace.with_config(
        finetune={
            **workspace.config["finetune"],
            "sweep": {"learning_rate": [1e-5, 1e-4], "num_epochs": [], "train_n_passages": []},
        }
    )
    assert swept.jobs("sweep") == {"finetune_variant": 2, "sweep": 1}
    swept.snakemake("sweep")
    found = swept.read("stage2_finetune/sweep.json")
    assert [row["learning_rate"] for row in found["rows"]] == [1e-5, 1e-4]
    best = max(row["validation"] for row in found["rows"])
    assert [row["validation"] for row in found["rows"] if row["chosen"]] == [best]
    table = (swept.output / "stage2_finetune/sweep.md").read_text()
    assert sum(line.startswith("|") for line in table.splitlines()) >= 4
    assert swept.jobs("sweep") == {}
    # the main job's own training is untouched
    assert workspace.jobs() == {}


def test_a_data_curve_trains_on_shares_of_the_documents(workspace: Workspace) -> None:
    curve = workspace.with_config(finetune={**workspace.config["finetune"], "data_curve": [0.5, 1.0]})
    curve.snakemake("data_curve")
    rows = curve.read("stage2_finetune/data_curve.json")["rows"]
    assert [row["document_share"] for row in rows] == [0.5, 1.0]
    assert rows[0]["examples"] < rows[1]["examples"]
