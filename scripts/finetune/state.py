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

KEPT = 2


class StateFolder:
    """The saved states of one training run."""

    def __init__(self, root: str | Path, facts: dict[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
        self.folder = Path(root) / key
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "run.json", facts)

    def save(self, step: int, values: dict[str, Any]) -> None:
        """Save the state after ``step``; older ones but the last are deleted."""
        target = self.folder / f"state_{step:08d}.pt"
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        torch.save(values, temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
        for old in sorted(self.folder.glob("state_*.pt"))[:-KEPT]:
            old.unlink()

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

    def weights_file(self, name: str) -> Path:
        """Where the weights of a finished epoch or validated step are kept."""
        return self.folder / "weights" / f"{name}.safetensors"

    def keep_weights(self, steps: set[int]) -> None:
        """Delete the weights of all but these steps, once the run is finished."""
        wanted = {self.weights_file(f"step_{step:08d}") for step in steps}
        for path in (self.folder / "weights").glob("step_*.safetensors"):
            if path not in wanted:
                path.unlink()
