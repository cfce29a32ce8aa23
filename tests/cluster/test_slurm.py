"""The workflow through a real one-node Slurm: CPU and GPU partitions, GPU requests, the generator as a service."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.workflow.conftest import Workspace

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("apt-get") is None, reason="sets up Slurm with Debian's packages"
    ),
]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def slurm():
    """A running Slurm; one that was up before stays up."""
    was_up = (
        shutil.which("scontrol")
        and "UP" in subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False).stdout
    )
    done = subprocess.run([HERE / "slurm_up.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    yield
    if not was_up:
        # its configuration too: Snakemake's Slurm plugin waits 10 s at each start for a controller that is gone
        subprocess.run([HERE / "slurm_down.sh", "--purge"], check=False)


def accounting(jobs: list[str]) -> dict[str, str]:
    """What the controller says of jobs it still knows, by id."""
    return {
        job: subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=False).stdout
        for job in jobs
    }


def test_cpu_and_gpu_rules_go_to_their_partitions(slurm, fresh: Workspace) -> None:
    on_cluster = fresh.with_config(vectors={"device": "auto"})
    target = str(fresh.output / "vectors/base/chunks.json")
    said = on_cluster.snakemake("--workflow-profile", "profiles/slurm", "--", target).stderr
    jobs = [line.split("SLURM jobid ")[1].split()[0] for line in said.splitlines() if "SLURM jobid" in line]
    assert len(jobs) == 2, said
    told = accounting(jobs)
    by_rule = {text.split("Comment=")[1].split()[0]: text for text in told.values()}
    chunk = next(text for name, text in by_rule.items() if "chunk" in name)
    embed = next(text for name, text in by_rule.items() if "embed" in name)
    assert "Partition=cpu" in chunk
    assert "gres" not in chunk.lower().split("tresperjob")[-1] or "gpu" not in chunk.lower()
    assert "Partition=gpu" in embed
    assert "gpu:1" in embed or "gpu=1" in embed
    assert on_cluster.read("vectors/base/chunks.json")["count"] > 0


def test_generator_and_its_job_share_a_host(slurm, fresh: Workspace) -> None:
    target = str(fresh.output / "stage0_sdg/generated/0.jsonl")
    said = (
        fresh.with_config(sdg__sample_documents=2)
        .snakemake("--workflow-profile", "profiles/slurm", "--", target)
        .stderr
    )
    assert "generate_llm_server" in said
    assert (fresh.output / "stage0_sdg/generated/0.jsonl").stat().st_size > 0
    assert subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=False).stdout == ""
