"""The user's own ``train.json`` in place of conversion: checked, and put where mining expects it."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json
from scripts.common.job import job, log
from scripts.common.passages import Passage, read_corpus, write_corpus
from scripts.prep.prep import unrolled_ids
from scripts.prep.sources import whole


def adopt(source: str | Path, output: str | Path, corpus_id: str) -> int:
    """Copy a training file and its corpus into stage 1; returns the number of examples.

    Raises:
        UserError: The file is not of the recipe's form, or names a passage that its corpus lacks; an example that is
            wrong is named by its line.
    """
    path = Path(source)
    value = read_json(path, "prep.train_input_file")
    passages, data = read_corpus(_corpus_path(value, path)), value.get("data")
    if not isinstance(data, list):
        raise UserError(f"{path}: `data` must be a list of examples, but is {type(data).__name__}.")
    seen: dict[str, int] = {}
    for number, item in enumerate(data):
        try:
            data[number] = _example(item, passages, corpus_id)
            for name in unrolled_ids(data[number]):
                if name in seen:
                    raise UserError(
                        f"`question_id` {name} is that of example {seen[name] + 1}, too (an example of several "
                        "positives is unrolled to <id>_0, <id>_1, …)."
                    )
                seen[name] = number
        except UserError as error:
            raise UserError(f"{path}, line {_line_of(path, number)} (example {number + 1}): {error}") from error
    root = Path(output)
    write_corpus(root / "corpus", passages, corpus_id)
    write_json(root / "train.json", {"corpus": {"path": "./corpus/"}, "data": data})
    write_json(root / "val.json", {"corpus": {"path": "./corpus/"}, "data": []})
    log.info("%d examples, %d passages from %s", len(data), len(passages), path)
    return len(data)


def corpus_file(source: str | Path) -> Path:
    """The parquet file that a training file names.

    Raises:
        UserError: The file is missing or names none.
    """
    named = _corpus_path(read_json(source, "prep.train_input_file"), Path(source))
    return Path(os.path.normpath(named / "train.parquet" if named.is_dir() else named))


def _corpus_path(value: Any, path: Path) -> Path:
    corpus = value.get("corpus") if isinstance(value, dict) else None
    named = corpus.get("path") if isinstance(corpus, dict) else None
    if not isinstance(named, str):
        raise UserError(f"{path} is not of the form {{'corpus': {{'path': …}}, 'data': […]}}.")
    return path.parent / named


def _example(item: Any, passages: dict[str, Passage], corpus_id: str) -> dict[str, Any]:
    """An example in the workflow's form, without what is wrong with it."""
    if not isinstance(item, dict):
        raise UserError(f"expected an object, found {type(item).__name__}.")
    if not isinstance(item.get("question"), str) or not item["question"].strip():
        raise UserError("`question` must be text that is not empty.")
    name = item.get("question_id")
    if isinstance(name, bool) or not isinstance(name, int | str) or name == "":
        raise UserError(f"`question_id` is missing, or no text or number ({name!r}).")
    named = {side: item.get(side) or [] for side in ("pos_doc", "neg_doc")}
    for side, entries in named.items():
        if not isinstance(entries, list):
            raise UserError(f"`{side}` must be a list of passages, but is {type(entries).__name__}.")
        named[side] = [{"id": passage} for passage in dict.fromkeys(_passage(entry, passages) for entry in entries)]
    if not named["pos_doc"]:
        raise UserError("needs at least one passage in `pos_doc`.")
    also = item.get("also_positive") or []
    if not isinstance(also, list):
        raise UserError(f"`also_positive` must be a list of passages, but is {type(also).__name__}.")
    return {
        "corpus_id": corpus_id,
        **item,
        "question": whole(item["question"]),
        "question_id": str(name),
        **named,
        **({"also_positive": [_passage(entry, passages) for entry in also]} if also else {}),
    }


def _passage(entry: Any, passages: dict[str, Passage]) -> str:
    name = str(entry.get("id")) if isinstance(entry, dict) else str(entry)
    if name not in passages:
        raise UserError(f"passage {name} is not in the corpus.")
    return name


def _line_of(path: Path, number: int) -> int:
    """Line in which an item of ``data`` begins."""
    text, decoder = path.read_text(encoding="utf-8-sig"), json.JSONDecoder()
    position = text.index("{") + 1
    while True:
        position = _next(text, position)
        name, position = decoder.raw_decode(text, position)
        position = _next(text, position)
        if name == "data":
            break
        position = decoder.raw_decode(text, position)[1]
    # beyond the bracket, and then past the items before this one
    position = _next(text, position + 1)
    for _ in itertools.repeat(None, number):
        position = _next(text, decoder.raw_decode(text, position)[1])
    return 1 + text.count("\n", 0, position)


def _next(text: str, position: int) -> int:
    """Where the next value of valid JSON begins."""
    while text[position] in " \t\r\n,:":
        position += 1
    return position


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        adopt(snakemake.input.source, snakemake.params.output, snakemake.params.corpus_id)  # noqa: F821
