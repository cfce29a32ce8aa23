"""One table of several trainings: a sweep over options, or a curve over the size of the data."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import read_beir
from scripts.common.encoder import open_encoder
from scripts.common.files import read_json, write_json, write_text
from scripts.common.job import job, log
from scripts.common.metrics import evaluate_run
from scripts.common.search import as_run, top_k
from scripts.finetune.stored import stored_vectors

K = 10
OPTIONS = ("learning_rate", "num_epochs", "train_n_passages", "document_share")
# Resamples of the paired bootstrap, and its seed
RESAMPLES, SEED = 2000, 0
PerQuery = dict[str, dict[str, float]]


def compare(
    reports: Sequence[str | Path],
    contracts: Sequence[str | Path],
    base_contract: str | Path,
    test_sets: dict[str, str],
    *,
    store: str | Path,
    device: str,
) -> dict[str, Any]:
    """The table: validation and test scores of each training, and which one validation chooses.

    Test sets are only reported: choosing by them would make their scores too good to be true.

    Args:
        reports: ``finetune.json`` of each training.
        contracts: Its model's contract.
        base_contract: The base model's.
        test_sets: Folders in BEIR layout by name.
        store: Folder of the vector store.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    base = {name: score(base_contract, folder, store, device) for name, folder in test_sets.items()}
    rows = []
    for report_file, contract in zip(reports, contracts, strict=True):
        report = read_json(report_file, "training report")
        tests = {name: score(contract, folder, store, device) for name, folder in test_sets.items()}
        rows.append(
            {
                **{name: report["options"][name] for name in OPTIONS},
                "examples": report["examples"],
                "share": report["chosen"]["share"],
                "step": report["chosen"]["step"],
                "validation": report["chosen"]["ndcg@10"],
                "tests": {name: {**means(values), "gain": gain(base[name], values)} for name, values in tests.items()},
                "per_query": tests,
            }
        )
    scored = [row for row in rows if row["validation"] is not None]
    chosen = max(scored, key=lambda row: row["validation"], default=None)
    for row in rows:
        row["chosen"] = row is chosen
    return {"base": {name: means(values) for name, values in base.items()}, "rows": rows}


def score(contract: str | Path, folder: str, store: str | Path, device: str) -> PerQuery:
    """Metrics by query of a model on a test set; vectors go through the store."""
    test_set = read_beir(folder)
    encoder = open_encoder(contract, device=device)
    queries = stored_vectors(store, encoder, list(test_set.queries.values()), "query")
    corpus = stored_vectors(store, encoder, list(test_set.corpus.values()), "passage")
    rows, scores = top_k(queries, corpus, K + 1)  # one more: a query never finds itself
    return evaluate_run(test_set.qrels, as_run(list(test_set.queries), list(test_set.corpus), rows, scores), [K])


def means(values: PerQuery) -> dict[str, float]:
    """Mean nDCG@10 and Recall@10."""
    return {
        name: round(float(np.mean([row[name] for row in values.values()])), 5) for name in (f"NDCG@{K}", f"Recall@{K}")
    }


def gain(before: PerQuery, after: PerQuery) -> dict[str, float]:
    """Mean difference of nDCG@10 with the 95 % interval of a paired bootstrap over queries."""
    differences = np.array([after[query][f"NDCG@{K}"] - row[f"NDCG@{K}"] for query, row in before.items()])
    chooser = np.random.default_rng(SEED)
    resampled = [chooser.choice(differences, len(differences)).mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {
        name: round(float(value), 5) for name, value in (("mean", differences.mean()), ("low", low), ("high", high))
    }


def verdict(rows: Sequence[dict[str, Any]], test_set: str) -> str:
    """What the last step of a data-size curve says about still more documents."""
    ordered = sorted(rows, key=lambda row: row["document_share"])
    for smaller, larger in itertools.pairwise(ordered[-2:]):
        step = gain(smaller["per_query"][test_set], larger["per_query"][test_set])
        said = (
            f"{test_set}: from {smaller['document_share']:.0%} to {larger['document_share']:.0%} of the documents, "
            f"nDCG@{K} moved by {step['mean']:+.4f} (95 % interval {step['low']:+.4f} to {step['high']:+.4f})"
        )
        if step["low"] > 0:
            return f"{said}: more documents would very likely help."
        if step["high"] < 0:
            return f"{said}: more documents hurt here; look at their questions first."
        return f"{said}: whether more documents would help cannot be told from so many queries."
    return f"{test_set}: one size is no curve."


def table(result: dict[str, Any], title: str, notes: Sequence[str] = ()) -> str:
    """The result as Markdown."""
    names = list(result["base"])
    head = ["learning rate", "epochs", "passages", "documents", "examples", "validation nDCG@10", "share of tuning"]
    head += [f"{name} {metric}" for name in names for metric in ("nDCG@10", "gain (95 %)", "Recall@10")]
    empty = [""] * 5
    base = ["base", *empty, "0"]
    for name in names:
        base += [f"{result['base'][name][f'NDCG@{K}']:.4f}", "", f"{result['base'][name][f'Recall@{K}']:.4f}"]
    lines = [base]
    for row in result["rows"]:
        validation = "" if row["validation"] is None else f"{row['validation']:.4f}"
        cells = [
            f"{row['learning_rate']:g}",
            row["num_epochs"],
            row["train_n_passages"],
            f"{row['document_share']:.0%}",
        ]
        cells += [row["examples"], f"**{validation}**" if row["chosen"] else validation, f"{row['share']:g}"]
        for name in names:
            test = row["tests"][name]
            moved = test["gain"]
            cells.append(f"{test[f'NDCG@{K}']:.4f}")
            cells.append(f"{moved['mean']:+.4f} ({moved['low']:+.4f} to {moved['high']:+.4f})")
            cells.append(f"{test[f'Recall@{K}']:.4f}")
        lines.append([str(cell) for cell in cells])
    body = "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])
    best = [row for row in result["rows"] if row["chosen"]]
    said = [
        "Validation chooses "
        + ", ".join(f"finetune.{name}={best[0][name]:g}" for name in OPTIONS)
        + "; the test sets had no say."
        if best
        else "Without validation questions nothing is chosen: set finetune.select=validation and prep.val_ratio."
    ]
    return f"# {title}\n\n{body}\n\n" + "\n\n".join([*said, *notes]) + "\n"


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        found = compare(
            snakemake.input.reports,  # noqa: F821
            snakemake.input.contracts,  # noqa: F821
            snakemake.input.base,  # noqa: F821
            snakemake.params.test_sets,  # noqa: F821
            store=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
            device=snakemake.config["vectors"]["device"],  # noqa: F821
        )
        curve = snakemake.params.title == "Data-size curve"  # noqa: F821
        notes = [verdict(found["rows"], name) for name in found["base"]] if curve else []
        text = table(found, snakemake.params.title, notes)  # noqa: F821
        for row in found["rows"]:
            del row["per_query"]
        write_json(snakemake.output.data, {**found, "notes": notes})  # noqa: F821
        write_text(snakemake.output.table, text)  # noqa: F821
        log.info("%s", text)
