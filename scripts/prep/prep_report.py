"""What stage 1 made of the questions: sizes, what was left out, hard negatives, leakage, and what to worry about."""

import collections
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import read_beir
from scripts.common.contract import Contract
from scripts.common.files import read_json, write_json
from scripts.common.job import job, log
from scripts.common.passages import Passage, read_corpus, searchable
from scripts.common.vector_store import VectorStore
from scripts.prep.figures import draw_all
from scripts.prep.leakage import leakage, warnings_of


def prep_report(
    folder: str | Path,
    target: str | Path,
    figures: str | Path,
    *,
    test_sets: Mapping[str, str | Path],
    contract: Contract,
    store: str | Path,
    embedded: Sequence[str],
) -> dict[str, Any]:
    """Write ``prep_report.json`` and the figures.

    Args:
        folder: Stage 1's folder.
        target: The report.
        figures: Folder of the figures, each as SVG and CSV.
        test_sets: Folder in BEIR layout by name.
        contract: The base model's.
        store: Folder of the vector store.
        embedded: Test sets of which the store has the base model's vectors.
    """
    root = Path(folder)
    mined = read_json(root / "train_mined.automodel.json", "mined file")
    val = read_json(root / "val.json", "validation file")["data"]
    passages = read_corpus(root / "corpus")
    split = read_json(root / "split.json", "split report") if (root / "split.json").is_file() else {}
    data = mined["data"]
    training = [*data, *val]
    answers = [passages[name].text for item in training for name in trained_on(item, passages)]
    query_store, passage_store = VectorStore(store, contract, "query"), VectorStore(store, contract, "passage")
    tests: dict[str, Any] = {}
    sizes = {"questions": {"train": len(data), "val": len(val)}}
    for name, place in test_sets.items():
        test = read_beir(place)
        known = name in embedded
        tests[name] = leakage(
            [item["question"] for item in training],
            answers,
            test,
            query_vectors=query_store.gather if known else None,
            passage_vectors=passage_store.gather if known else None,
        )
        sizes["questions"][name] = len(test.queries)
    if split:
        sizes["documents"] = split["documents"]
    sizes["passages"] = {"searchable": len(searchable(passages)), "training only": len(passages)}
    sizes["passages"]["training only"] -= sizes["passages"]["searchable"]
    negatives = negatives_of(data)
    wanted = mined["mining"]["args"]["hard_negatives_to_mine"]
    said = [
        *split.get("warnings", []),
        *mining_warnings(negatives, wanted, len(data)),
        *(line for name, found in tests.items() for line in warnings_of(name, found)),
    ]
    report = {
        "schema_version": 1,
        "sizes": sizes,
        "left_out": split.get("left_out", {}),
        "near_duplicate_groups": len(split.get("near_duplicate_groups", [])),
        "frozen_test_set": split.get("frozen_test_set"),
        "mining": {**mined["mining"], "negatives": negatives},
        "leakage": tests,
        "warnings": said,
    }
    draw_all(report, data, Path(figures))
    write_json(target, report)
    for line in said:
        log.warning("%s", line)
    return report


def trained_on(item: Mapping[str, Any], passages: Mapping[str, Passage]) -> list[str]:
    """Ids of the passages that training shows as an example's answer.

    Of one that was cut for training, that is the passage it was cut from as well. Other known answers stand in the
    example only so that they are no negatives.
    """
    names = [entry["id"] for entry in item["pos_doc"]]
    cut = any(passages[name].training_only for name in names)
    return [*names, *item.get("also_positive", ())] if cut else names


def negatives_of(data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many hard negatives questions have, at which rank, and how far below the positive."""
    counts = [len(item["neg_doc"]) for item in data]
    entries = [entry for item in data for entry in item["neg_doc"]]

    def spread(values: Sequence[float]) -> dict[str, float] | None:
        if not values:
            return None
        low, middle, high = np.percentile(values, [10, 50, 90])
        return {"p10": round(float(low), 4), "median": round(float(middle), 4), "p90": round(float(high), 4)}

    return {
        "questions_by_count": {str(number): count for number, count in sorted(collections.Counter(counts).items())},
        "median": statistics.median(counts) if counts else 0,
        "rank": spread([entry["rank"] for entry in entries if "rank" in entry]),
        "score": spread([entry["score"] for entry in entries if "score" in entry]),
        "margin": spread([entry["margin"] for entry in entries if "margin" in entry]),
        "positive_score": spread([entry["score"] for item in data for entry in item["pos_doc"] if "score" in entry]),
    }


def mining_warnings(negatives: Mapping[str, Any], wanted: int, questions: int) -> list[str]:
    """Short lists of hard negatives, which training fills by repetition."""
    none = negatives["questions_by_count"].get("0", 0)
    short = sum(count for number, count in negatives["questions_by_count"].items() if int(number) < wanted) - none
    said = []
    if none:
        said.append(f"{none} of {questions} training questions have no hard negative: their positives score too low")
    if short:
        said.append(f"{short} of {questions} training questions have some, but fewer than {wanted} hard negatives")
    return said


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        prep_report(
            Path(snakemake.input.mined).parent,  # noqa: F821
            snakemake.output.report,  # noqa: F821
            snakemake.output.figures,  # noqa: F821
            test_sets=snakemake.params.test_sets,  # noqa: F821
            contract=Contract.load(snakemake.input.contract),  # noqa: F821
            store=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
            embedded=snakemake.params.embedded,  # noqa: F821
        )
