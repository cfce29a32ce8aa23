"""Near misses before a judge: metrics of all systems before and after unjudged passages that answer count as relevant.

Judgements of a test set are never complete: what no system of the time found, nobody read (Zobel 1998). Here only what
several systems rank above every judged passage is put to an LLM, one query and passage at a time, so the judge cannot
know which system found it. Its word changes no other number: the verdict rests on the judgements as they are.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scripts.common.beir import read_beir
from scripts.common.files import read_json, write_json
from scripts.common.job import job, log
from scripts.common.llm import ChatModel
from scripts.common.metrics import evaluate_run, flat_means
from scripts.common.progress import progress
from scripts.common.relevance import ANSWERS, PARALLEL, grade, open_judge
from scripts.common.replies import ReplyStore
from scripts.eval.results import read_result, read_run


def judge(
    test_set: str | Path,
    comparison_file: str | Path,
    evaluations: Sequence[str | Path],
    target: str | Path,
    *,
    model: ChatModel,
    k_values: Sequence[int],
) -> dict[str, Any]:
    """Judge the near misses of a comparison and score all systems with the judgements added.

    Args:
        test_set: Folder in BEIR layout.
        comparison_file: What rule ``compare`` wrote.
        evaluations: ``stage3_eval/{system}/{test set}.json`` with ``.trec`` beside them.
        target: JSON file.
        model: The judge.
        k_values: Cut-offs.
    """
    collection = read_beir(test_set)
    misses = read_json(comparison_file, "comparison")["near_misses"]
    with (
        ThreadPoolExecutor(PARALLEL) as pool,
        progress(len(misses), "judge near misses", "passage") as bar,
    ):
        grades = []
        for graded in pool.map(lambda miss: grade(model, miss["text"], collection.corpus[miss["passage"]]), misses):
            grades.append(graded)
            bar.update()
    judged = [{**miss, **graded} for miss, graded in zip(misses, grades, strict=True)]
    qrels = {query: dict(found) for query, found in collection.qrels.items()}
    for row in judged:
        if row["grade"] is not None:
            qrels[row["query"]][row["passage"]] = int(row["grade"] >= ANSWERS)
    systems = {}
    for path in map(Path, evaluations):
        before = read_result(path)
        after = flat_means(evaluate_run(qrels, read_run(path.with_suffix(".trec")), k_values))
        systems[before["model"]] = {"before": before["means"], "after": after}
    result = {
        "test_set": str(test_set),
        "judge": f"{model.provider}/{model.model}",
        "judged": sum(row["grade"] is not None for row in judged),
        "relevant": sum((row["grade"] or 0) >= ANSWERS for row in judged),
        "without_answer": sum(row["grade"] is None for row in judged),
        "systems": systems,
        "near_misses": judged,
    }
    write_json(target, result)
    log.info("%d near misses judged, %d relevant; usage %s", result["judged"], result["relevant"], model.usage)
    return result


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        judge(
            Path(snakemake.input.queries).parent,  # noqa: F821
            snakemake.input.comparison,  # noqa: F821
            snakemake.input.evaluations,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            model=open_judge(
                snakemake.config,  # noqa: F821
                ReplyStore(f"{snakemake.config['output_dir']}/cache/replies"),  # noqa: F821
                provider=snakemake.params.provider,  # noqa: F821
                name=snakemake.params.model,  # noqa: F821
            ),
            k_values=snakemake.params.k_values,  # noqa: F821
        )
