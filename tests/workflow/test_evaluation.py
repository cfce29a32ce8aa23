"""Evaluation in the workflow: what a second checkpoint costs, gates that make it fail, the report as a target."""

from pathlib import Path

import pytest

from tests.workflow.conftest import Workspace

pytestmark = pytest.mark.slow


def test_a_second_checkpoint_costs_one_encoding_and_evaluates_no_other_model(
    workspace: Workspace, tiny_model: Path
) -> None:
    jobs = workspace.with_config(eval__checkpoints={"other": str(tiny_model)}).jobs()
    # the corpus and the queries of the one test set
    assert jobs == {"checkpoint_contract": 1, "embed": 2, "evaluate": 1, "compare": 1, "eval": 1, "all": 1}


def test_the_exported_model_is_evaluated_by_its_own_vectors(workspace: Workspace) -> None:
    jobs = workspace.with_config(eval__eval_onnx=True).jobs()
    assert jobs == {"embed": 2, "evaluate": 1, "compare": 1, "eval": 1, "all": 1}


def test_a_set_of_ones_own_evaluates_every_system_on_it_alone(workspace: Workspace, tmp_path: Path) -> None:
    from scripts.common.beir import write_beir

    corpus = [{"_id": "d", "title": "", "text": "a passage"}]
    write_beir(tmp_path / "mine", corpus, [{"_id": "q", "text": "a query"}], [("q", "d", 1)])
    jobs = workspace.with_config(eval__test_sets={"mine": str(tmp_path / "mine")}).jobs()
    assert jobs["embed"] == 4
    assert (jobs["evaluate"], jobs["evaluate_bm25"], jobs["evaluate_fusion"], jobs["compare"]) == (2, 1, 1, 1)


@pytest.mark.parametrize(
    "option",
    [{"eval__explore_port": 9999}, {"eval__nim_timeout": 5}, {"eval__nim_batch_size": 7}],
    ids=lambda option: next(iter(option)),
)
def test_options_that_change_no_bytes_rerun_nothing(workspace: Workspace, option: dict) -> None:
    assert workspace.with_config(**option).jobs() == {}


def test_limits_of_the_verdict_rerun_the_verdict_alone(workspace: Workspace) -> None:
    assert workspace.with_config(eval__min_queries=31).jobs() == {"eval": 1, "all": 1}


def test_a_required_verdict_fails_the_workflow_and_says_why(workspace: Workspace) -> None:
    # so many queries are never there: the verdict is insufficient_data
    strict = workspace.with_config(eval__require="ship", eval__min_queries=100_000)
    results = workspace.output / "stage3_eval" / "eval_results.json"
    before = results.read_bytes()
    try:
        done = strict.snakemake("--until", "eval", check=False)
        assert done.returncode
        assert "eval.require is ship, but the verdict is insufficient_data" in done.stdout + done.stderr
        assert (results.parent / "refused" / "eval_results.json").is_file()
    finally:
        workspace.snakemake("--until", "eval")
    assert results.read_bytes() == before


def test_the_report_is_a_target_and_part_of_snakemakes_own(workspace: Workspace, tmp_path: Path) -> None:
    workspace.snakemake("report")
    folder = workspace.output / "stage3_eval"
    assert "Embedding model report" in (folder / "report.html").read_text()
    assert (folder / "figures" / "training.svg").is_file()
    assert workspace.jobs("report") == {}
    workspace.snakemake("report", "--report", str(tmp_path / "snakemake.html"))
    page = (tmp_path / "snakemake.html").read_text()
    assert "Evaluation" in page
    assert "report page" in page
