"""Options on the command line: ``--config section.option=value``."""

import subprocess
import sys

from tests.workflow.conftest import Workspace, environment


def options_of(workspace: Workspace, *entries: str) -> subprocess.CompletedProcess[str]:
    """Preview one training job, so that its parameters are shown, with entries of ``--config``."""
    target = str(workspace.output / "stage2_finetune/finetune.json")
    command = [sys.executable, "-m", "snakemake", "-n", "-p", "--config", f"output_dir={workspace.output}"]
    return subprocess.run(
        [*command, f"corpus_dir={workspace.corpus}", *entries, "--", target],
        cwd=workspace.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_overrides_reach_their_options(fresh: Workspace) -> None:
    done = options_of(
        fresh,
        "finetune.num_epochs=0",
        "finetune={max_grad_norm: 0}",
        "finetune.learning_rate=-1e-5",
        "llm.local.port=70000",
        "finetune.epochs=1",
    )
    assert done.returncode != 0
    text = done.stdout + done.stderr
    for words in (
        "finetune.num_epochs is 0",
        "finetune.max_grad_norm is 0",
        "finetune.learning_rate is -1e-05",
        "llm.local.port is 70000",
        "unknown option finetune.epochs; did you mean finetune.num_epochs?",
    ):
        assert words in text


def test_other_options_of_a_section_stay(fresh: Workspace) -> None:
    # train_n_passages is 2 in config.yaml and 5 in the schema: with one mined negative only the first is valid
    done = options_of(
        fresh,
        "finetune.num_epochs=1",
        "prep.hard_negatives_to_mine=1",
        "prep.train_ratio=0.5",
        "prep.val_ratio=0.25",
        "prep.test_ratio=0.25",
        "eval.test_sets.mine=/data/beir",
    )
    assert done.returncode == 0, done.stdout + done.stderr
