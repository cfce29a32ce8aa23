import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from scripts.common.config import defaults, expand_dotted, load_schema, options, resolve
from scripts.common.config_docs import EMBEDDED, README, option_tables
from scripts.common.errors import UserError

SCHEMA = load_schema()
EMBEDDED_DEFAULT = yaml.safe_load(EMBEDDED.read_text(encoding="utf-8"))


def complaint(**changes: object) -> str:
    """What is said of the embedded default with some options changed (dotted names, ``__`` for the dot)."""
    with pytest.raises(UserError) as error:
        resolve(EMBEDDED_DEFAULT | {name.replace("__", "."): value for name, value in changes.items()})
    return str(error.value)


def test_schema_is_a_valid_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_every_option_has_a_default_a_type_and_a_help_line() -> None:
    for name, option in options(SCHEMA).items():
        assert "default" in option, name
        assert "type" in option, name
        assert option["description"].endswith((".", ")")), name
        Draft202012Validator(option).validate(option["default"])


def test_unknown_keys_are_errors_on_every_level() -> None:
    def closed(sub: dict, name: str) -> None:
        if sub.get("type") == "object":
            assert "additionalProperties" in sub, name
        for key, child in sub.get("properties", {}).items():
            closed(child, f"{name}.{key}")

    closed(SCHEMA, "config")


def test_defaults_alone_are_a_valid_configuration() -> None:
    assert resolve({}) == defaults()


def test_the_embedded_default_is_valid_and_needs_no_host() -> None:
    config = resolve(EMBEDDED_DEFAULT)
    assert config["allow_egress"] == []
    assert config["sdg"]["qa_generation_provider"] == "local"
    assert config["sdg"]["embed_model"] is None
    assert config["finetune"]["weight_decay"] == defaults()["finetune"]["weight_decay"]


def test_resolve_leaves_its_argument_as_it_was() -> None:
    given_config = {"finetune.num_epochs": "7", "prep": {"val_ratio": 0}}
    before = copy.deepcopy(given_config)
    resolve(given_config)
    assert given_config == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"finetune__num_epoch": 1}, ["unknown option finetune.num_epoch", "did you mean finetune.num_epochs?"]),
        ({"learning_rate": 1}, ["unknown option learning_rate", "finetune.learning_rate"]),
        ({"finetune__num_epochs": "many"}, ["finetune.num_epochs is 'many'", "must be of type integer"]),
        ({"finetune__num_epochs": 0}, ["finetune.num_epochs is 0", "> 0"]),
        ({"finetune__select": "best"}, ["finetune.select", "one of last, validation"]),
        ({"sdg__min_complexity": 6}, ["sdg.min_complexity is 6", "<= 5"]),
        ({"prep__train_ratio": 0.8}, ["prep.train_ratio + prep.val_ratio + prep.test_ratio is 1.1", "must be 1"]),
        (
            {"prep__hard_negatives_to_mine": 2, "finetune__train_n_passages": 5},
            ["prep.hard_negatives_to_mine is 2", "finetune.train_n_passages - 1", "raise the first to 4"],
        ),
        ({"sdg__min_hops": 4}, ["sdg.min_hops (4) is greater than sdg.max_hops (3)"]),
        ({"export__trt_min_batch": 32}, ["export.trt_min_batch (32) is greater than export.trt_opt_batch (16)"]),
        ({"export__trt_opt_seq_len": 600, "export__trt_max_seq_len": 512}, ["trt_opt_seq_len (600) is greater"]),
        (
            {"export__export_to_trt": True, "export__trt_max_seq_len": 128},
            ["shorter than the longest trained sequence"],
        ),
        ({"export__quant_cfg": "fp8"}, ["export.quant_cfg needs export.export_to_trt=true"]),
        (
            {"finetune__local_batch_size": 24},
            ["not a multiple of finetune.local_batch_size (24)", "set the first to 24"],
        ),
        (
            {"finetune__local_batch_size": 64},
            ["not a multiple of finetune.local_batch_size (64)", "set the first to 64"],
        ),
        ({"prep__val_ratio": 0, "prep__test_ratio": 0.3}, ["finetune.select=validation needs validation documents"]),
        ({"prep__sdg_input_path": "a", "prep__train_input_file": "b"}, ["both set; keep one"]),
        ({"prep__train_input_file": "b"}, ["makes no test set", "eval.test_sets"]),
        (
            {
                "prep__test_ratio": 0,
                "prep__train_ratio": 0.9,
                "eval__test_sets": {"a": "x"},
                "eval__decide_on": "heldout",
            },
            ["eval.decide_on is 'heldout'"],
        ),
        ({"finetune__general_set": "x", "finetune__select": "last"}, ["set finetune.select=validation"]),
        ({"eval__decide_on": "people"}, ["eval.decide_on is 'people', which is no test set; there are heldout"]),
        ({"prep__test_ratio": 0, "prep__train_ratio": 0.9}, ["prep.test_ratio is 0", "eval.test_sets"]),
        ({"eval__finetuned_model_path": "scripts"}, ["eval.finetuned_model_path: scripts has no contract.json"]),
        ({"prep__split_strategy": "groups"}, ["needs prep.groups_json"]),
        ({"prep__artifact_recipe": "rerank"}, ["prep.artifact_recipe is 'rerank'", "must be one of embed"]),
        (
            {"prep__hard_neg_judge": True, "sdg__quality_judge_provider": "local"},
            ["prep.hard_neg_judge needs a judge that is served", "is 'local'"],
        ),
        ({"eval__test_sets": {"heldout": "x"}}, ["eval.test_sets.heldout"]),
        ({"eval__eval_base": False, "eval__eval_finetuned": False}, ["all false; set one"]),
        ({"eval__fail_on_nim_metric_drift": True}, ["compares two evaluations"]),
        (
            {"sdg__query_counts": {"multi_hop": 1, "structural": 1, "contextual": 1}},
            ["sums to 3", "sdg.num_pairs is 6"],
        ),
        ({"sdg__qa_generation_provider": "acme"}, ["'acme', which llm.providers does not define"]),
        ({"finetune__report_to": ["wandb"]}, ["names wandb", "api.wandb.ai", "allow_egress"]),
        ({"eval__nim_url": "localhost:8000"}, ["eval.nim_url", "Address of the served model"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_named_with_their_fix(changes: dict, words: list[str]) -> None:
    text = complaint(**changes)
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("eval_beir_path", "out/stage1_data_prep/eval_beir"),
        ("eval_beir_path", "here/eval_beir"),
        ("train_input_file", "./elsewhere/../out/stage1_data_prep/train.json"),
        ("sdg_input_path", "out/stage1_data_prep/eval_beir"),
        ("sdg_input_path", "out/stage0_sdg/generation_result.json"),
    ],
)
def test_what_a_run_writes_is_not_its_input(
    option: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "stage1_data_prep").mkdir(parents=True)
    (tmp_path / "here").symlink_to("out/stage1_data_prep")
    given_options = {"output_dir": "out", f"prep__{option}": named, "eval__test_sets": {"people": "x"}}
    assert f"prep.{option} is {named}" in complaint(**given_options)
    assert "copy it elsewhere first" in complaint(**given_options)
    resolve(EMBEDDED_DEFAULT | {"output_dir": "out2", f"prep.{option}": named, "eval.test_sets": {"people": "x"}})


def test_all_mistakes_are_told_at_once() -> None:
    text = complaint(finetune__num_epochs=0, sdg__styl="x", export__opset=3)
    assert "3 mistake(s)" in text


@pytest.mark.parametrize(
    ("given_value", "read"),
    [("1e-5", 1e-5), ("2", 2.0), (3, 3.0), ("0.5", 0.5)],
)
def test_numbers_of_the_command_line_are_read(given_value: object, read: float) -> None:
    assert resolve({"finetune.learning_rate": given_value})["finetune"]["learning_rate"] == read


def test_other_types_of_the_command_line_are_read() -> None:
    config = resolve(
        {
            "finetune": {"num_epochs": "2", "in_batch_negatives": "true", "max_examples": "null"},
            "sdg": {"embed_model": "null", "round_trip_top_k": "20"},
            "eval": {"k_values": ["1", "10"]},
            "corpus_id": 7,
        }
    )
    assert config["finetune"]["num_epochs"] == 2
    assert config["finetune"]["in_batch_negatives"] is True
    assert config["finetune"]["max_examples"] is None
    assert config["sdg"]["embed_model"] is None
    assert config["sdg"]["round_trip_top_k"] == 20
    assert config["eval"]["k_values"] == [1, 10]
    assert config["corpus_id"] == "7"


def test_resolving_twice_changes_nothing() -> None:
    # Snakemake hands the resolved configuration to the jobs it starts, which resolve it again
    once = resolve(EMBEDDED_DEFAULT)
    assert resolve(once) == once


KEYS = st.text("abc", min_size=1, max_size=3)


@given(st.dictionaries(st.lists(KEYS, min_size=1, max_size=3).map(".".join), st.integers()))
def test_dotted_keys_are_found_where_they_point(config: dict[str, int]) -> None:
    nested = expand_dotted(config)
    last = list(config)[-1:]
    for key in last:
        node = nested
        for part in key.split("."):
            node = node[part]
        assert node == config[key] or isinstance(node, dict)
    assert not any("." in key for key in nested)


def test_dotted_keys_win_over_nested_ones_and_keep_the_rest() -> None:
    nested = expand_dotted({"prep": {"val_ratio": 0.1, "test_ratio": 0.2}, "prep.val_ratio": 0.3})
    assert nested == {"prep": {"val_ratio": 0.3, "test_ratio": 0.2}}


def test_option_tables_are_those_of_the_schema() -> None:
    assert option_tables(SCHEMA, EMBEDDED_DEFAULT) in README.read_text(encoding="utf-8"), (
        "run python -m scripts.common.config_docs"
    )


def test_no_default_is_written_twice_in_the_embedded_config() -> None:
    seed = defaults()
    same = [
        f"{section}.{name}"
        for section, values in EMBEDDED_DEFAULT.items()
        if isinstance(values, dict)
        for name, value in values.items()
        if seed[section][name] == value
    ]
    # the three ratios are one statement, so all three stand there
    assert same == ["prep.test_ratio"], "the schema's default says that already"
