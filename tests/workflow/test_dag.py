"""What reruns after which change: stale means changed content."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.common.passages import Passage, write_corpus
from tests.workflow.conftest import Workspace, copy_repository, environment

pytestmark = pytest.mark.slow
AFTER_TRAINING = {"embed", "evaluate", "evaluate_fusion", "compare", "eval", "export_onnx", "export", "all"}


@pytest.mark.parametrize(
    "option",
    [
        {"deploy__host_port": 9999},
        {"llm__local": {"model_dir": "SAME", "port": 18080, "parallel": 1}},
        {"llm__timeout": 5},
        {"sdg__max_parallel_requests_for_gen": 1},
        {"prep__mining_batch_size": 7},
        {"prep__corpus_chunk_size": 100},
        {"vectors__token_budget": 512},
        {"log_level": "ERROR"},
    ],
    ids=lambda option: next(iter(option)),
)
def test_options_that_change_no_bytes_rerun_nothing(workspace: Workspace, option: dict) -> None:
    for value in option.values():
        if isinstance(value, dict):
            value["model_dir"] = workspace.config["llm"]["local"]["model_dir"]
    assert workspace.with_config(**option).jobs() == {}


def test_an_export_option_reruns_export_alone(workspace: Workspace) -> None:
    assert set(workspace.with_config(export__opset=16).jobs()) == {"export_onnx", "export", "all"}


def test_the_learning_rate_reruns_finetune_onwards(workspace: Workspace) -> None:
    changed = workspace.with_config(finetune__learning_rate=3e-4)
    jobs = changed.jobs()
    assert set(jobs) == AFTER_TRAINING | {"finetune"}
    # vectors of the base model are re-used: only the tuned model's two sets are asked for
    assert jobs["embed"] == 2
    assert jobs["evaluate"] == 1


def test_touching_sources_reruns_nothing(workspace: Workspace) -> None:
    for path in [*workspace.folder.glob("scripts/**/*.py"), *workspace.folder.glob("rules/*.smk")]:
        os.utime(path)
    assert workspace.jobs() == {}


def test_a_fresh_clone_over_existing_outputs_reruns_nothing(workspace: Workspace, tmp_path: Path) -> None:
    clone = Workspace(copy_repository(tmp_path / "clone"), workspace.output, workspace.corpus, workspace.config)
    assert clone.jobs() == {}


def test_changed_code_reruns_from_where_it_is_used(workspace: Workspace) -> None:
    source = workspace.folder / "scripts/prep/convert.py"
    before = source.read_text()
    try:
        source.write_text(before.replace('"""Records to', '"""Other words for: records to') + "\n# a remark\n")
        assert workspace.jobs() == {}
        source.write_text(before.replace("score < threshold", "score <= threshold"))
        jobs = workspace.jobs()
    finally:
        source.write_text(before)
    assert {"split", "mine", "prep", "finetune", "eval", "export"} <= set(jobs)
    assert not {"chunk", "generate", "sdg", "llm_server"} & set(jobs)


def test_touching_a_document_reruns_nothing_and_editing_one_does(workspace: Workspace) -> None:
    document = next(iter(sorted(workspace.corpus.iterdir())))
    before = document.read_bytes()
    os.utime(document)
    assert workspace.jobs() == {}
    try:
        document.write_bytes(before + b"\nOne more sentence stands here now.\n")
        assert {"chunk", "generate", "sdg", "finetune"} <= set(workspace.jobs())
    finally:
        document.write_bytes(before)


def test_own_question_pairs_keep_sdg_out(workspace: Workspace, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("question,passage\nWhat is it?,It is a thing.\n")
    jobs = workspace.with_config(prep__sdg_input_path=str(pairs)).jobs()
    assert "split" in jobs
    assert not {"chunk", "plan", "generate", "sdg", "llm_server"} & set(jobs)


def write_pairs(file: Path, first: int) -> None:
    rows = [
        {"question": f"What is number {n}?", "passage": f"Number {n} is a thing."} for n in range(first, first + 20)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_editing_a_file_that_is_read_reruns(fresh: Workspace, tmp_path: Path, tiny_model: Path) -> None:
    questions, model = tmp_path / "questions", tmp_path / "model"
    write_pairs(questions / "a.jsonl", 0)
    write_pairs(questions / "b.jsonl", 20)
    shutil.copytree(tiny_model, model)
    given = fresh.with_config(prep__sdg_input_path=str(questions), model={"base_model": str(model)})
    targets = [str(fresh.output / name) for name in ("stage1_data_prep/split.json", "vectors/base/contract.json")]
    given.snakemake("--", *targets)
    assert given.jobs("--", *targets) == {}
    write_pairs(questions / "b.jsonl", 30)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    assert given.jobs("--", *targets) == {"split": 1, "contract": 1}


def test_editing_the_corpus_of_an_own_training_file_reruns(fresh: Workspace, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    item = {"question_id": "q0", "question": "why?", "pos_doc": [{"id": "d1"}]}
    own.write_text(json.dumps({"corpus": {"path": "./texts"}, "data": [item]}))
    write_corpus(tmp_path / "texts", {"d1": Passage("one", [])}, "c")
    given = fresh.with_config(prep__train_input_file=str(own), eval__test_sets={"people": str(tmp_path)})
    target = str(fresh.output / "stage1_data_prep/train.json")
    given.snakemake("--", target)
    assert given.jobs("--", target) == {}
    write_corpus(tmp_path / "texts", {"d1": Passage("another", [])}, "c")
    assert given.jobs("--", target) == {"split": 1}


def test_passages_of_the_split_are_encoded_one_job_after_the_other(fresh: Workspace) -> None:
    said = fresh.snakemake("-n", "--", str(fresh.output / "vectors/base/corpus.json")).stdout
    reason = said.split("vectors of corpus by the base model")[1].split("Job ")[0]
    assert "vectors/base/heldout_corpus.json" in reason


@pytest.mark.parametrize(
    ("stage", "last", "absent"),
    [
        ("sdg", "sdg", {"split", "finetune", "export"}),
        ("prep", "prep", {"finetune", "eval", "export"}),
        ("finetune", "finetune", {"eval", "export"}),
        ("eval", "eval", {"export", "all"}),
        ("export", "export", {"all"}),
    ],
)
def test_until(fresh: Workspace, stage: str, last: str, absent: set[str]) -> None:
    jobs = fresh.jobs("--until", stage)
    assert last in jobs
    assert not absent & set(jobs)


def test_a_preview_leaves_a_full_run_as_it_is(workspace: Workspace) -> None:
    jobs = set(workspace.with_config(sdg__preview=True).jobs())
    assert {"preview", "all"} <= jobs <= {"preview", "all", "llm_server", "fetch_generator"}


def test_asking_for_a_file_builds_just_that(fresh: Workspace) -> None:
    assert fresh.jobs(str(fresh.output / "vectors/base/contract.json")) == {"contract": 1}


def test_preview_imports_no_heavy_library(fresh: Workspace) -> None:
    command = fresh.command("-n")
    code = (
        "import sys, runpy; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_module('snakemake', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'faiss', 'onnxruntime', 'datasets', 'sklearn', 'matplotlib'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "snakemake", *command[3:]],
        cwd=fresh.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "HEAVY []" in done.stdout, done.stdout[-500:] + done.stderr[-1500:]


def test_deploy_and_undeploy_are_asked_for_by_name(workspace: Workspace) -> None:
    assert workspace.jobs("deploy") == {"deploy": 1}
    assert workspace.jobs("undeploy") == {"undeploy": 1}
    assert "deploy" not in workspace.with_config(export__opset=16).jobs()


def test_without_a_split_for_testing_own_sets_alone_are_evaluated(fresh: Workspace, tmp_path: Path) -> None:
    from scripts.common.beir import write_beir

    corpus = [{"_id": "d", "title": "", "text": "a passage"}]
    write_beir(tmp_path / "mine", corpus, [{"_id": "q", "text": "a query"}], [("q", "d", 1)])
    own = fresh.with_config(
        prep={"train_ratio": 0.9, "val_ratio": 0.1, "test_ratio": 0}, eval__test_sets={"mine": str(tmp_path / "mine")}
    )
    said = own.snakemake("-n", "-p").stdout
    assert "comparing" in said.lower() and "heldout" not in said
