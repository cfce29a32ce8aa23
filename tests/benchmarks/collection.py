"""Tune on a test collection's documents and score base and tuned on its human queries, side by side.

    python -m tests.benchmarks.collection ../shared/collections/cranfield --work output/cranfield

The collection (BEIR layout) is used as a user's corpus: its documents are written as files, its queries and judgements
are seen by the evaluation alone. More options go to Snakemake as ``--config`` entries: ``finetune.seed=1``.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from scripts.common.files import read_jsonl, write_text

ROOT = Path(__file__).parents[2]


def write_documents(collection: Path, folder: Path) -> int:
    """One text file a document: title, blank line, text; documents without any text are left out."""
    count = 0
    for _, row in read_jsonl(collection / "corpus.jsonl"):
        parts = [part for part in (row.get("title", "").strip(), row["text"].strip()) if part]
        if parts:
            write_text(folder / f"{row['_id']}.txt", "\n\n".join(parts) + "\n")
            count += 1
    return count


def main() -> int:
    """Run the workflow and print what its evaluation says of the human queries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for documents and output")
    parser.add_argument("--sample", type=int, default=300, help="documents to ask questions about")
    parser.add_argument("config", nargs="*", help="more --config entries")
    arguments = parser.parse_intermixed_args()
    name = arguments.collection.resolve().name
    documents = arguments.work / "documents"
    if not documents.is_dir():
        print(f"{write_documents(arguments.collection, documents)} documents in {documents}")
    output = arguments.work / "embed"
    done = subprocess.run(
        [
            *("snakemake", "--config", f"output_dir={output.resolve()}", f"corpus_dir={documents.resolve()}"),
            *(f"corpus_id={name}", f"sdg.sample_documents={arguments.sample}"),
            *(f"eval.test_sets.{name}={arguments.collection.resolve()}", *arguments.config),
            *("--", str(output.resolve() / "stage3_eval" / "eval_results.json")),
        ],
        cwd=ROOT,
        check=False,
    )
    if done.returncode:
        return done.returncode
    results = json.loads((output / "stage3_eval" / "eval_results.json").read_text())
    tuning = json.loads((output / "stage2_finetune" / "finetune.json").read_text())
    scores = {model: values["NDCG"]["NDCG@10"] for model, values in results["_test_sets"][name].items()}
    recall = {model: values["Recall"]["Recall@10"] for model, values in results["_test_sets"][name].items()}
    print(json.dumps({"collection": name, "ndcg@10": scores, "recall@10": recall, "chosen": tuning["chosen"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
