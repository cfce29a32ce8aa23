"""Tune on the documents of test collections and score base and tuned on their human queries: one table.

    python -m tests.benchmarks.collection ../shared/collections/cranfield --work output/bench
    python -m tests.benchmarks.collection ../shared/collections/{cranfield,cacm} --work output/bench --seeds 42 43 44

A collection (BEIR layout) is used as a user's corpus: its documents are written as files, its queries and judgements
are seen by the evaluation alone. More options, written before ``--seeds``, go to Snakemake as ``--config`` entries:
``finetune.num_epochs=1``. Seeds share documents, questions and the base's vectors; what was done is not done again. The
table is printed and kept as ``tuning.md`` and ``tuning.json`` in the folder of ``--work``.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.common.files import read_json, read_jsonl, write_json, write_text

ROOT = Path(__file__).parents[2]
METRICS = ("NDCG@10", "Recall@10")


def write_documents(collection: Path, folder: Path) -> int:
    """One text file a document: title, blank line, text; documents without any text are left out."""
    count = 0
    for _, row in read_jsonl(collection / "corpus.jsonl"):
        parts = [part for part in (row.get("title", "").strip(), row["text"].strip()) if part]
        if parts:
            write_text(folder / f"{row['_id']}.txt", "\n\n".join(parts) + "\n")
            count += 1
    return count


def tune(collection: Path, work: Path, sample: int, config: Sequence[str]) -> None:
    """Run the workflow up to its evaluation on a collection's documents, in ``work``.

    Raises:
        SystemExit: Snakemake failed; it has said why.
    """
    documents, output = work / "documents", (work / "embed").resolve()
    if not documents.is_dir():
        print(f"{write_documents(collection, documents)} documents in {documents}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--config", f"output_dir={output}"),
            *(f"corpus_dir={documents.resolve()}", f"corpus_id={collection.name}"),
            *(f"sdg.sample_documents={sample}", f"eval.test_sets.{collection.name}={collection}", *config),
            *("--", f"{output}/stage3_eval/eval_results.json"),
        ],
        cwd=ROOT,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.returncode)


def scores(collection: str, seed: int, output: Path) -> dict[str, Any]:
    """What a finished run says of the human queries, in points."""
    compared = read_json(output / "stage3_eval/eval_results.json", "results")["_comparison"][collection]
    tuning = read_json(output / "stage2_finetune/finetune.json", "summary of the training")
    tuned = next(row for row in compared["differences"] if (row["candidate"], row["baseline"]) == ("finetuned", "base"))
    row: dict[str, Any] = {"collection": collection, "seed": seed, "queries": compared["queries"]}
    for metric in METRICS:
        evidence = tuned["metrics"][metric]
        row[metric] = {
            **{system: round(100 * values[metric], 2) for system, values in compared["systems"].items()},
            "change": round(100 * evidence["delta"], 2),
            "interval": [round(100 * evidence["low"], 2), round(100 * evidence["high"], 2)],
        }
    return {**row, "chosen": tuning["chosen"], "examples": tuning["examples"]}


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    heads = [f"{metric}: base, tuned, change [95 %], BM25" for metric in METRICS]
    yield f"| collection | seed | {' | '.join(heads)} | chosen: step, share |"
    yield "|---|---|" + "---|" * (len(METRICS) + 1)
    for row in rows:
        cells = []
        for metric in METRICS:
            values = row[metric]
            low, high = values["interval"]
            cells.append(
                f"{values['base']:.1f}, {values['finetuned']:.1f}, "
                f"**{values['change']:+.1f}** [{low:+.1f}, {high:+.1f}], {values['bm25']:.1f}"
            )
        chosen = row["chosen"]
        yield (
            f"| {row['collection']} ({row['queries']} queries) | {row['seed']} | {' | '.join(cells)} | "
            f"{chosen['step']}, {chosen['share']:g} |"
        )


def main() -> int:
    """Run the workflow by collection and seed; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", nargs="+", metavar="COLLECTION | option=value", help="folders, --config entries")
    parser.add_argument("--work", type=Path, required=True, help="folder for documents and output")
    parser.add_argument("--sample", type=int, default=300, help="documents to ask questions about")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42], help="seeds of the training")
    arguments = parser.parse_intermixed_args()
    config = [entry for entry in arguments.entries if "=" in entry]
    rows = []
    for collection in (Path(entry).resolve() for entry in arguments.entries if "=" not in entry):
        work = arguments.work / collection.name
        for seed in arguments.seeds:
            tune(collection, work, arguments.sample, [f"finetune.seed={seed}", *config])
            rows.append(scores(collection.name, seed, work / "embed"))
            write_json(arguments.work / "tuning.json", {"config": config, "rows": rows})
            write_text(arguments.work / "tuning.md", "\n".join(table(rows)) + "\n")
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
