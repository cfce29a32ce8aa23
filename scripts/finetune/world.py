"""The processes that train together, and how they are started: torchrun, one process on each GPU.

On several nodes Slurm's ``srun`` starts a torchrun on each, and these meet at the first node (torchrun's c10d
rendezvous, https://docs.pytorch.org/docs/stable/elastic/run.html).
"""

import dataclasses
import datetime
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.job import log

# Rank 0 validates while the others wait: longer than any validation takes
PATIENCE = datetime.timedelta(hours=12)


@dataclasses.dataclass(frozen=True)
class World:
    """This process among those that train together; alone by default."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: str) -> "World":
        """Join the processes that torchrun started (NCCL between GPUs, gloo between CPU processes)."""
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
        return cls(distributed.get_rank(), distributed.get_world_size())

    def leave(self) -> None:
        """End the group."""
        if self.size > 1:
            distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum gradients over all processes; a parameter that got none anywhere keeps none, as with one process."""
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        got = torch.tensor([float(parameter.grad is not None) for parameter in trained], device=trained[0].device)
        self.sum(got)
        waiting = []
        for parameter, present in zip(trained, got.tolist(), strict=True):
            if present:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                waiting.append(distributed.all_reduce(parameter.grad, async_op=True))
        for work in waiting:
            work.wait()

    def agree(self, flag: bool) -> bool:
        """What the first process says, in all processes."""
        if self.size == 1:
            return flag
        return bool(self.sum(self._scalar(float(flag and self.first))).item())

    def _scalar(self, value: float) -> torch.Tensor:
        return torch.tensor([value], device="cuda" if distributed.get_backend() == "nccl" else "cpu")


def torchrun(processes: int, nodes: int, environment: Mapping[str, str]) -> list[str]:
    """The command line that starts ``processes`` on each of ``nodes``, up to the module to run.

    Raises:
        UserError: Several nodes, and no Slurm job that has them.
    """
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    if nodes == 1:
        return [*command, "--standalone"]
    held = int(environment.get("SLURM_JOB_NUM_NODES", 0))
    if held < nodes:
        raise UserError(
            f"finetune.num_nodes is {nodes}, but this job has {held or 'no'} nodes of Slurm's: run it with a Slurm "
            "profile (`--workflow-profile profiles/slurm`), or set num_nodes to 1."
        )
    # this script runs on the job's first node, inside a step that holds its processors: overlap shares them
    start = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    meeting = f"--rdzv-endpoint={socket.gethostname()}:{_free_port()}"
    return [*start, *command, f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-id={uuid.uuid4().hex}", meeting]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def start_processes(arguments: dict[str, Any], processes: int, folder: Path, nodes: int = 1) -> dict[str, Any]:
    """Run :func:`scripts.finetune.finetune.finetune` in ``processes`` processes on each node; returns its result.

    Args:
        arguments: Of the function, fit for JSON.
        processes: On each node.
        folder: For the files that pass arguments and result; all nodes see it.
        nodes: Nodes of this Slurm job.

    Raises:
        UserError: There are fewer GPUs than processes, or training failed (the message is the first process's).
    """
    if arguments["device"] != "cpu" and torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise UserError(
            f"finetune.num_gpus is {processes}, but this machine shows {torch.cuda.device_count()}: lower it, or ask "
            "the cluster for more (CUDA_VISIBLE_DEVICES)."
        )
    folder.mkdir(parents=True, exist_ok=True)
    call, result, failure = (folder / f"processes_{os.getpid()}.{kind}.json" for kind in ("call", "result", "failure"))
    write_json(call, {"arguments": arguments, "result": str(result), "failure": str(failure)})
    command = torchrun(processes, nodes, os.environ)
    try:
        log.info("starting %d processes on %d nodes", nodes * processes, nodes)
        done = subprocess.run([*command, "-m", "scripts.finetune.worker", str(call)], check=False)
        if failure.is_file():
            raise UserError(json.loads(failure.read_text(encoding="utf-8")))
        if done.returncode or not result.is_file():
            raise UserError(
                f"training with {nodes * processes} processes ended with exit code {done.returncode}; its own message "
                "stands above. A process that was killed without one ran out of memory as a rule: halve "
                "finetune.local_batch_size."
            )
        return json.loads(result.read_text(encoding="utf-8"))
    finally:
        for path in (call, result, failure):
            path.unlink(missing_ok=True)
