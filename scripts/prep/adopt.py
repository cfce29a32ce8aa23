"""The user's own ``train.json`` in place of conversion: checked, and put where mining expects it."""

from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json
from scripts.common.job import job, log
from scripts.common.passages import read_corpus, write_corpus


def adopt(source: str | Path, output: str | Path, corpus_id: str) -> int:
    """Copy a training file and its corpus into stage 1; returns the number of examples.

    Raises:
        UserError: The file is not of the recipe's form, or names a passage that its corpus lacks.
    """
    path = Path(source)
    value = read_json(path, "prep.train_input_file")
    try:
        corpus_path, data = path.parent / value["corpus"]["path"], value["data"]
    except (TypeError, KeyError) as error:
        raise UserError(f"{path} is not of the form {{'corpus': {{'path': …}}, 'data': […]}} ({error}).") from error
    passages = read_corpus(corpus_path)
    seen: set[str] = set()
    for number, item in enumerate(data, start=1):
        place = f"{path}, example {number}"
        if not isinstance(item, dict) or not item.get("question") or not item.get("pos_doc"):
            raise UserError(f"{place}: needs `question` and at least one `pos_doc`.")
        if item.get("question_id") in seen or not item.get("question_id"):
            raise UserError(f"{place}: `question_id` is missing or stands there twice ({item.get('question_id')}).")
        seen.add(item["question_id"])
        item["pos_doc"] = [_reference(entry, passages, place) for entry in item["pos_doc"]]
        item["neg_doc"] = [_reference(entry, passages, place) for entry in item.get("neg_doc") or []]
        item.setdefault("corpus_id", corpus_id)
    root = Path(output)
    write_corpus(root / "corpus", passages, corpus_id)
    write_json(root / "train.json", {"corpus": {"path": "./corpus/"}, "data": data})
    write_json(root / "val.json", {"corpus": {"path": "./corpus/"}, "data": []})
    log.info("%d examples, %d passages from %s", len(data), len(passages), path)
    return len(data)


def _reference(entry: object, passages: dict[str, object], place: str) -> dict[str, str]:
    name = str(entry.get("id")) if isinstance(entry, dict) else str(entry)
    if name not in passages:
        raise UserError(f"{place}: passage {name} is not in the corpus.")
    return {"id": name}


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        adopt(snakemake.input.source, snakemake.params.output, snakemake.params.corpus_id)  # noqa: F821
