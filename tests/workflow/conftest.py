"""A copy of the repository with the main job run in it once: small documents, a one-layer model, the real generator."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "rules", "scripts", "config", "profiles", "envs", "pyproject.toml")
# Weights are downloaded once for the checkout, not once a test
GENERATOR_FOLDER = ROOT / "output" / "models"


def copy_repository(target: Path) -> Path:
    """A fresh checkout: the sources alone, with new dates and without Snakemake's metadata."""
    target.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(
                source, target / part, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copy
            )
        else:
            shutil.copy(source, target / part)
    return target


@dataclasses.dataclass
class Workspace:
    """A checkout with a configuration, and Snakemake in it."""

    folder: Path
    output: Path
    corpus: Path
    config: dict[str, Any]

    def with_config(self, **sections: Any) -> "Workspace":
        """The same with other options (dotted names)."""
        config = json.loads(json.dumps(self.config))
        for name, value in sections.items():
            config[name.replace("__", ".")] = value
        return dataclasses.replace(self, config=config)

    def command(self, *arguments: str) -> list[str]:
        """The command line; the configuration goes by file."""
        path = self.folder / f"config-{abs(hash(json.dumps(self.config, sort_keys=True)))}.yaml"
        path.write_text(yaml.safe_dump(self.config))
        return [sys.executable, "-m", "snakemake", f"--configfile={path}", *arguments]

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Snakemake; with ``check`` a failure shows what it said."""
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, env=environment(), capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise AssertionError(
                f"snakemake {' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
            )
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake in a session of its own, so that signals reach it alone or its whole group."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def jobs(self, *arguments: str) -> dict[str, int]:
        """What would run: jobs by rule."""
        said = self.snakemake("-n", *arguments)
        text = said.stdout + said.stderr
        if "Nothing to be done" in text:
            return {}
        table = text.split("Job stats:")[1]
        return {
            name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE) if name != "total"
        }

    def read(self, path: str) -> Any:
        """A JSON file below the output folder."""
        return json.loads((self.output / path).read_text())


def environment() -> dict[str, str]:
    """The tests' environment, without what pytest put into it."""
    return {**os.environ, "HF_HUB_OFFLINE": "1"}


def make_workspace(base: Path, model: Path, documents: Path) -> Workspace:
    """A workspace below ``base``."""
    folder = copy_repository(base / "checkout")
    output = base / "output"
    config = {
        "output_dir": str(output),
        "corpus_dir": str(documents),
        "model": {"base_model": str(model), "query_prefix": "query:", "passage_prefix": "", "passage_max_length": 128},
        "llm": {"local": {"model_dir": str(GENERATOR_FOLDER)}},
        # What the generator writes differs from machine to machine (its kernels round differently), and the checks
        # would leave few of so few questions: with pairs made without it, validation and test have questions anywhere
        "sdg": {
            "sample_documents": 12,
            "num_pairs": 3,
            "llm_free_pairs": 2,
            "llm_free_test_queries": True,
            "round_trip_top_k": 50,
            "question_checks": False,
        },
        "prep": {"train_ratio": 0.5, "val_ratio": 0.2, "test_ratio": 0.3, "min_test_questions": 0},
        "finetune": {
            "num_epochs": 1,
            "global_batch_size": 16,
            "local_batch_size": 16,
            "learning_rate": 1e-4,
            "on_no_gain": "tuned",
        },
    }
    return Workspace(folder, output, documents, config)


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty real documents: docstrings of an installed library."""
    from scripts.sdg.sample_corpus import sample_corpus

    folder = tmp_path_factory.mktemp("documents")
    sample_corpus("sklearn", folder, documents=30)
    return folder


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, documents: Path) -> Workspace:
    """The workspace in which the main job ran."""
    made = make_workspace(tmp_path_factory.mktemp("workflow"), tiny_model, documents)
    made.snakemake()
    return made


@pytest.fixture
def fresh(tmp_path: Path, tiny_model: Path, documents: Path) -> Workspace:
    """A workspace in which nothing ran."""
    return make_workspace(tmp_path, tiny_model, documents)


def wait_until(condition: Any, seconds: float, what: str) -> None:
    """Poll until ``condition()`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


def kill_group(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """Send a signal to a process and all it started in its group, and wait for it."""
    os.killpg(process.pid, number)
    process.wait(60)
