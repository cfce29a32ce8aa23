"""Killed and interrupted runs: nothing paid for is lost, and no process stays behind."""

import json
import signal

import psutil
import pytest

from tests.workflow.conftest import Workspace, kill_group, wait_until

pytestmark = pytest.mark.slow


def replies(workspace: Workspace) -> list[dict]:
    """Stored replies; a line that a kill tore is no reply."""
    found = []
    for path in (workspace.output / "cache/replies").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def left_behind(workspace: Workspace) -> list[str]:
    """Processes that still work for this workspace."""
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(workspace.output) in line]


def generated(workspace: Workspace) -> str:
    return str(workspace.output / "stage0_sdg/generated/0.jsonl")


def test_kill_during_generation_loses_no_reply(fresh: Workspace) -> None:
    process = fresh.start("--", generated(fresh))
    wait_until(lambda: len(replies(fresh)) >= 4, 180, "the fourth reply")
    kill_group(process)
    wait_until(lambda: not left_behind(fresh), 20, "the end of the server")
    kept = {reply["key"] for reply in replies(fresh)}
    assert 4 <= len(kept) < 12

    said = fresh.snakemake("--", generated(fresh)).stderr
    assert f"{len(kept)} replies re-used" in said
    everything = [reply["key"] for reply in replies(fresh)]
    assert len(everything) == len(set(everything)) == 12
    records = [json.loads(line) for line in (fresh.output / "stage0_sdg/generated/0.jsonl").read_text().splitlines()]
    assert len(records) == 30
    assert not left_behind(fresh)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_interrupt_leaves_no_process(fresh: Workspace, number: signal.Signals) -> None:
    process = fresh.start("--", generated(fresh))
    wait_until(lambda: len(replies(fresh)) >= 1, 180, "the first reply")
    if number == signal.SIGINT:
        kill_group(process, number)
    else:
        # Snakemake lets running jobs end before it stops
        process.send_signal(number)
        process.wait(180)
    wait_until(lambda: not left_behind(fresh), 20, "the end of all processes")


def test_failure_leaves_no_process(fresh: Workspace) -> None:
    # a budget that the first reply uses up: the job fails while the generator runs
    broken = fresh.with_config(llm={"local": fresh.config["llm"]["local"], "max_tokens": 1000})
    done = broken.snakemake("--", generated(broken), check=False)
    assert done.returncode != 0
    wait_until(lambda: not left_behind(broken), 20, "the end of all processes")
