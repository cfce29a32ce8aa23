"""Several trainings in one table, for real."""

import pytest

from scripts.finetune.sweep import table as as_table
from tests.workflow.conftest import Workspace

pytestmark = pytest.mark.slow


def test_a_sweep_trains_each_combination_and_compares_them(workspace: Workspace) -> None:
    swept = workspace.with_config(
        finetune={
            **workspace.config["finetune"],
            "sweep": {"learning_rate": [1e-5, 1e-4], "num_epochs": [], "train_n_passages": []},
        }
    )
    swept.snakemake("sweep")
    found = swept.read("stage2_finetune/sweep.json")
    assert [row["learning_rate"] for row in found["rows"]] == [1e-5, 1e-4]
    assert all(set(row["tests"]) == {"heldout"} for row in found["rows"])
    table = (swept.output / "stage2_finetune/sweep.md").read_text()
    assert sum(line.startswith("|") for line in table.splitlines()) == 5
    # validation chooses, the first of equals
    scores = [row["validation"] for row in found["rows"]]
    assert [row["chosen"] for row in found["rows"]] == [place == scores.index(max(scores)) for place in range(2)]
    assert "the test sets had no say" in table
    assert swept.jobs("sweep") == {}
    # the main job's own training is untouched
    assert workspace.jobs() == {}
    # without validation questions there would be no choice
    unscored = [{**row, "validation": None, "chosen": False} for row in found["rows"]]
    assert "set finetune.select=validation and prep.val_ratio" in as_table({**found, "rows": unscored}, "Sweep")


def test_a_data_curve_trains_on_shares_of_the_documents(workspace: Workspace) -> None:
    curve = workspace.with_config(finetune={**workspace.config["finetune"], "data_curve": [0.5, 1.0]})
    curve.snakemake("data_curve")
    rows = curve.read("stage2_finetune/data_curve.json")["rows"]
    assert [row["document_share"] for row in rows] == [0.5, 1.0]
    assert rows[0]["examples"] < rows[1]["examples"]
