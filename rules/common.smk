"""Shared by all rule files (the checked configuration, paths, code digests and environments).

inputs: config/schema/config.schema.yaml
optional inputs: none
outputs: none
"""

import os
import sys

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)

from scripts.common.code_digest import code_digest
from scripts.common.config import has_heldout, resolve
from scripts.common.contract import contract_inputs
from scripts.common.corpus import fingerprint, parse_extensions
from scripts.common.errors import UserError
from scripts.common.files import sha256_file
from scripts.common.imports import share_imports, share_interpreter
from scripts.common.run_lock import hold_run_lock


def or_explain(function, *arguments):
    """Call a function whose UserError is for the user: Snakemake shows it without a stack trace."""
    try:
        return function(*arguments)
    except UserError as error:
        raise WorkflowError(str(error)) from None


def or_end(function, *arguments):
    """The same inside input and params functions, where Snakemake would add a stack trace to an exception."""
    try:
        return function(*arguments)
    except UserError as error:
        logger.error(str(error))
        raise SystemExit(1) from None


share_imports(workflow.basedir)
share_interpreter()
config = or_explain(resolve, config)


def out(path):
    """A path below the output folder."""
    return f"{config['output_dir']}/{path}"


def log_file(name):
    """Log file of a rule."""
    return out(f"logs/{name}.log")


def code(script):
    """Digest of a script below scripts/ and of what it imports: reruns follow its content."""
    return code_digest(f"scripts/{script}", workflow.basedir)


def environment(kind):
    """Environment file by hardware class."""
    return os.path.join(workflow.basedir, "envs", f"{kind}.yaml")


def on_gpu(count=1):
    """Resources of a rule that wants GPUs; none where vectors.device is cpu."""
    if config["vectors"]["device"] == "cpu" or not count:
        return {}
    return {"gpu": count, "slurm_partition": config["gpu_partition"]}


def by_input(least, per_mb):
    """Memory in MB that follows the size of the input."""
    return lambda wildcards, input: max(least, int(per_mb * input.size_mb))


# Environment of rules that use PyTorch
TORCH = environment("cpu" if config["vectors"]["device"] == "cpu" else "gpu")


onstart:
    or_explain(hold_run_lock, config["output_dir"])


def options(section, *names):
    """The named options of a section: what a rule's files depend on, and no more."""
    return {name: config[section][name] for name in names}


def digest_of_file(path):
    """Parameter that follows the content of a file outside the workflow."""
    return or_end(sha256_file, path)


def corpus_fingerprint(wildcards):
    """Parameter that follows the names and contents of the documents."""
    return or_end(
        fingerprint,
        config["corpus_dir"],
        parse_extensions(config["sdg"]["file_extensions"]),
        out("cache/corpus_index.json"),
    )


def folder_of(name):
    """Parameter with the folder of a declared output."""
    return lambda wildcards, output: os.path.dirname(output[name])


def digest_if_named(path):
    """The same for an optional file; ``None`` where none is named."""
    return lambda wildcards: digest_of_file(path) if path else None


def is_below(path, folder):
    """Whether a path (or none) lies in a folder."""
    absolute = os.path.abspath(folder)
    return (
        bool(path) and os.path.commonpath([os.path.abspath(path), absolute]) == absolute
    )


def test_set_files(folder):
    """Files of a test set in BEIR layout; none without a folder."""
    names = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
    return [f"{folder}/{name}" for name in names] if folder else []


def variants(file, shares, **values):
    """A file of each training of a table, by learning rate, epochs, passages and share of the documents."""
    return expand(
        out(file),
        lr=[f"{rate:g}" for rate in values["learning_rate"]],
        epochs=values["num_epochs"],
        passages=values["train_n_passages"],
        share=[f"{share:g}" for share in shares],
    )
