"""What one system did on one test set, as files: means (JSON), values of every query (parquet), the run (TREC)."""

from pathlib import Path
from typing import Any

from scripts.common.beir import TestSet
from scripts.common.errors import UserError
from scripts.common.files import atomic_path, read_json, write_json
from scripts.common.job import log
from scripts.common.metrics import Run, evaluate_run, flat_means, mean_metrics


def score_and_write(
    collection: TestSet, run: Run, target: str | Path, *, system: str, folder: str | Path, k_values: list[int]
) -> dict[str, Any]:
    """Score a run and write ``target`` (JSON) with ``.parquet`` and ``.trec`` beside it.

    Args:
        collection: The test set.
        run: The system's ranking.
        target: JSON file of the means, in the recipe's shape under ``metrics``, all of them under ``means``.
        system: Name of the system.
        folder: Where the test set lies.
        k_values: Cut-offs.
    """
    itself = sum(judged.get(query, 0) > 0 for query, judged in collection.qrels.items())
    if itself:
        log.warning(
            "%s: %d queries have a relevant passage of the same id, which a query never finds (as in BEIR); "
            "rename one side's ids if they only look alike",
            folder,
            itself,
        )
    per_query = evaluate_run(collection.qrels, run, k_values)
    result = {
        "model": system,
        "test_set": str(folder),
        "queries": len(collection.queries),
        "passages": len(collection.corpus),
        "metrics": mean_metrics(per_query, k_values),
        "means": flat_means(per_query),
    }
    write_run(Path(target).with_suffix(".trec"), run, system)
    write_per_query(Path(target).with_suffix(".parquet"), per_query)
    write_json(target, result)
    log.info("%s: %d queries, %d passages, %s", system, result["queries"], result["passages"], result["means"])
    return result


def write_per_query(path: Path, per_query: dict[str, dict[str, float]]) -> None:
    """A parquet file: column ``query`` and one float64 column a metric, a row a query."""
    import pyarrow as pa
    from pyarrow import parquet

    names = next(iter(per_query.values()))
    columns: dict[str, Any] = {"query": list(per_query)}
    columns.update({name: [row[name] for row in per_query.values()] for name in names})
    with atomic_path(path) as temporary:
        parquet.write_table(pa.table(columns), temporary)


def read_per_query(path: str | Path) -> tuple[list[str], dict[str, Any]]:
    """Query ids and, by metric, a float64 array over them."""
    from pyarrow import parquet

    table = parquet.read_table(path)
    return table["query"].to_pylist(), {name: table[name].to_numpy() for name in table.column_names[1:]}


def read_result(path: str | Path) -> dict[str, Any]:
    """The JSON file of an evaluation."""
    return read_json(path, "evaluation")


def write_run(path: Path, run: Run, tag: str) -> None:
    """A TREC run file: ``query Q0 passage rank score tag``; nine digits, so that no two float32 scores become one."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        for query, found in run.items():
            for rank, (passage, score) in enumerate(found.items(), start=1):
                out.write(f"{query} Q0 {passage} {rank} {score:.9g} {tag}\n")


def read_run(path: str | Path) -> Run:
    """A TREC run file, best first as it stands there."""
    run: Run = {}
    # not splitlines(), which knows more ends of a line than a file has; ids may hold spaces
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        if not line.strip():
            # a system that found nothing for any query writes nothing
            continue
        try:
            query, rest = line.split(" Q0 ", 1)
            passage, _, score, _ = rest.rsplit(" ", 3)
            run.setdefault(query, {})[passage] = float(score)
        except ValueError as error:
            raise UserError(
                f"run file {path}, line {number}: six fields with a score as the fifth are expected."
            ) from error
    return run
