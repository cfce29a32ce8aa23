"""Saved training states, so that a killed run goes on where it was, and never with other data or options.

States live in ``cache/finetune/<key>/``, which no rule declares (Snakemake deletes a rule's outputs before it runs
again). The key is the digest of everything that decides the weights: data, base model, options, code.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from scripts.common.files import write_json
from scripts.common.job import log

# The newest, and the one before in case the newest cannot be read
KEPT = 2


class StateFolder:
    """The saved states of one training run."""

    def __init__(self, root: str | Path, facts: dict[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
        self.folder = Path(root) / key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.protected: set[int] = set()
        write_json(self.folder / "run.json", facts)

    def save(self, step: int, values: dict[str, Any]) -> None:
        """Save the state after ``step``; older ones are deleted, but for the last and those of ``protected`` steps."""
        target = self.state_file(step)
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        torch.save(values, temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
        for old in sorted(self.folder.glob("state_*.pt"))[:-KEPT]:
            if old not in {self.state_file(number) for number in self.protected}:
                old.unlink()
        for torn in (*self.folder.glob("state_*.tmp"), *self.folder.glob("weights/.*.tmp")):
            torn.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest state that can be read, or ``None``."""
        for path in sorted(self.folder.glob("state_*.pt"), reverse=True):
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # whatever a damaged file raises: the one before it will do
                log.warning("%s cannot be read (%s), trying the one before", path, error)
                continue
            log.info("going on after step %d (%s)", state["step"], path)
            return state
        return None

    def state_file(self, step: int) -> Path:
        """Where the state of a step is, while it is kept."""
        return self.folder / f"state_{step:08d}.pt"

    def weights_file(self, step: int) -> Path:
        """Where the weights of a validated step are."""
        return self.folder / "weights" / f"step_{step:08d}.safetensors"

    def keep(self, steps: set[int]) -> None:
        """Keep the weights and states of these steps alone, and the newest state, once the run is finished."""
        weights = {self.weights_file(step) for step in steps}
        for path in (self.folder / "weights").glob("step_*.safetensors"):
            if path not in weights:
                path.unlink()
        states = {self.state_file(step) for step in steps}
        for path in sorted(self.folder.glob("state_*.pt"))[:-1]:
            if path not in states:
                path.unlink()
