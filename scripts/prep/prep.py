"""Unroll: one training record per positive, each with the question's hard negatives."""

from pathlib import Path
from typing import Any

from scripts.common.files import read_json, write_json
from scripts.common.job import job, log

FIELDS = ("question_id", "question", "corpus_id", "pos_doc", "neg_doc")


def unroll(value: dict[str, Any]) -> dict[str, Any]:
    """A record with k > 1 positives becomes ``<id>_0 … <id>_{k-1}``; one with a single positive keeps its id."""
    data = []
    for item in value["data"]:
        if len(item["pos_doc"]) == 1:
            data.append(item)
            continue
        plain = {name: item[name] for name in FIELDS if name in item}
        for name, positive in zip(unrolled_ids(item), item["pos_doc"], strict=True):
            data.append({**plain, "question_id": name, "pos_doc": [positive]})
    return {"corpus": value["corpus"], "data": data}


def unrolled_ids(item: dict[str, Any]) -> list[str]:
    """Ids of the records that :func:`unroll` makes of one."""
    name, count = item["question_id"], len(item["pos_doc"])
    return [name] if count == 1 else [f"{name}_{number}" for number in range(count)]


def prep(mined_file: str | Path, target: str | Path) -> None:
    """Write ``train_mined.automodel_unrolled.json``."""
    value = unroll(read_json(mined_file, "mined file"))
    write_json(target, value)
    log.info("%d training records", len(value["data"]))


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        prep(snakemake.input.mined, snakemake.output[0])  # noqa: F821
