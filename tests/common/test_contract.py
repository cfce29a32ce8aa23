"""The contract: what decides a vector decides its key, and a model that says otherwise is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.common.contract import Contract, check_against_folder, contract_inputs, join_prefix, weights_digest
from scripts.common.errors import UserError

CONTRACT = Contract(
    model="m",
    weights_sha256="0" * 64,
    dimension=4,
    pooling="avg",
    l2_normalize=True,
    query_prefix="query:",
    passage_prefix="passage: ",
    query_max_length=8,
    passage_max_length=16,
)
OPTIONS: dict[str, Any] = {
    "pooling": "avg",
    "l2_normalize": True,
    "query_prefix": "query:",
    "passage_prefix": "passage:",
    "query_max_length": 8,
    "passage_max_length": 16,
}


def test_a_prefix_means_the_same_with_and_without_its_space() -> None:
    assert join_prefix("query:") == join_prefix("query: ") == "query: "
    assert join_prefix("") == ""
    assert CONTRACT.text("x", "query") == "query: x"
    assert CONTRACT.text("x", "passage") == "passage: x"


def test_a_side_depends_on_its_own_prefix_and_length_alone() -> None:
    changed = dataclasses.replace(CONTRACT, query_prefix="q:", query_max_length=9)
    assert changed.key("passage") == CONTRACT.key("passage")
    assert changed.key("query") != CONTRACT.key("query")
    moved = dataclasses.replace(CONTRACT, model="elsewhere", revision="v2", query_prefix="query: ")
    assert moved.key("query") == CONTRACT.key("query"), "where the weights lie does not matter"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    CONTRACT.save(tmp_path / "c.json")
    assert Contract.load(tmp_path / "c.json") == CONTRACT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version 1"),
        ({"surprise": 1}, r"unknown fields \(surprise\)"),
        ({"pooling": None}, "incomplete"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    value = {"schema_version": 1, **dataclasses.asdict(CONTRACT), **change}
    (tmp_path / "c.json").write_text(json.dumps({name: item for name, item in value.items() if item is not None}))
    with pytest.raises(UserError, match=message):
        Contract.load(tmp_path / "c.json")


def test_two_contracts_of_one_meaning() -> None:
    assert CONTRACT.same_meaning(dataclasses.replace(CONTRACT, weights_sha256="1" * 64, query_prefix="query: ")) == []
    other = dataclasses.replace(CONTRACT, pooling="cls", passage_prefix="")
    assert CONTRACT.same_meaning(other) == ["pooling", "passage_prefix"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 16}))
    (tmp_path / "model.safetensors").write_bytes(b"w")
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def test_a_plain_folder_has_nothing_to_say(folder: Path) -> None:
    check_against_folder(OPTIONS, folder)


def test_all_that_does_not_fit_is_said_at_once(folder: Path) -> None:
    write(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    write(folder / "modules.json", [{"type": "sentence_transformers.models.Dense"}])
    write(folder / "config_sentence_transformers.json", {"prompts": {"query": "ask: ", "document": ""}})
    with pytest.raises(UserError) as caught:
        check_against_folder({**OPTIONS, "passage_max_length": 32}, folder)
    text = str(caught.value)
    for part in ("trained with cls", "a Dense module", "passage_max_length is 32", "query_prefix is 'query:'"):
        assert part in text


def test_the_digest_follows_what_decides_vectors(folder: Path) -> None:
    first = weights_digest(folder)
    (folder / "README.md").write_text("changed")
    (folder / "pytorch_model.bin").write_bytes(b"not read where safetensors are")
    assert weights_digest(folder) == first
    for name, content in (("tokenizer.json", "{ }"), ("config.json", "{}"), ("model.safetensors", "v")):
        (folder / name).write_text(content)
        second = weights_digest(folder)
        assert second != first, name
        first = second


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no weights"):
        weights_digest(tmp_path)


def test_a_contract_follows_every_file_that_it_is_made_from(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    names = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "modeling.py",
        "modules.json",
        "1_Pooling/config.json",
    ]
    for name in [*names, "README.md", "pytorch_model.bin"]:
        (tmp_path / name).write_text("{}")
    assert contract_inputs(str(tmp_path)) == sorted(f"{tmp_path}/{name}" for name in names)
    assert contract_inputs("package:x") == contract_inputs("org/name") == []
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no weights"):
        contract_inputs(str(tmp_path / "empty"))
