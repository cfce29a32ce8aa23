"""Options of generation that depend on others, and models that share what they should."""

from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.common.llm import read_key
from scripts.common.replies import ReplyStore
from scripts.sdg.embedder import check_embedder
from scripts.sdg.generate import open_models
from tests.sdg.conftest import configuration

URL = "http://127.0.0.1:9/v1"


def test_a_cost_limit_needs_the_prices_of_hosted_models() -> None:
    with pytest.raises(UserError, match=r"llm\.max_cost needs the price of m: add it to llm\.prices"):
        configuration(Path("x"), URL, llm__max_cost=1)
    configuration(Path("x"), URL, llm__max_cost=1, llm__prices={"m": {"prompt": 1, "completion": 1}})


def test_an_address_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(UserError, match=r"llm\.providers\.test\.base_url holds a user") as error:
        configuration(Path("x"), "https://user:canary@example.com/v1")
    assert "canary" not in str(error.value)


@pytest.mark.parametrize("key", ["nvapi-canary-4711", "hf_canary4711", "sk-canary", "AIzacanary4711", "canary 4711"])
def test_a_key_in_place_of_its_variable_is_refused_and_not_shown(key: str) -> None:
    providers = {"test": {"base_url": URL, "api_key_env": key}}
    with pytest.raises(UserError, match=r"llm\.providers\.test\.api_key_env is \(not shown\).*Name of the") as error:
        configuration(Path("x"), URL, llm__providers=providers)
    assert "canary" not in str(error.value)


def test_a_key_in_place_of_its_variable_is_not_shown_by_a_client() -> None:
    with pytest.raises(UserError, match="is no such name") as error:
        read_key("nvapi-canary-4711")
    assert "canary" not in str(error.value)


def test_the_endpoint_of_vectors_is_checked_before_questions_are_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration(Path("x"), URL, sdg__embed_model="e", sdg__embed_provider="test")
    check_embedder(config)
    providers = {"test": {"base_url": "https://e.example.com/v1", "api_key_env": "EMBED_KEY"}}
    config = configuration(Path("x"), URL, sdg__embed_model="e", sdg__embed_provider="test", llm__providers=providers)
    with pytest.raises(UserError, match=r"sdg\.embed_model \(e at test\).*e\.example\.com.*allow_egress"):
        check_embedder(config)
    monkeypatch.delenv("EMBED_KEY", raising=False)
    with pytest.raises(UserError, match="EMBED_KEY is not set"):
        check_embedder(config | {"allow_egress": ["e.example.com"]})


def test_a_provider_without_a_key_needs_no_entry_for_it(tmp_path: Path) -> None:
    config = configuration(tmp_path, URL)
    assert config["llm"]["providers"]["test"]["api_key_env"] is None
    models = open_models(config, ReplyStore(tmp_path), None)
    assert models["qa_generation"] is models["quality_judge"]


def test_the_recipes_defaults_are_unchanged_by_the_checks_of_small_models() -> None:
    sdg = configuration(Path("x"), URL)["sdg"]
    assert sdg["style"] == "full"
    assert sdg["question_checks"] is None
    assert (sdg["lookup_share"], sdg["llm_free_pairs"], sdg["llm_free_extra_pairs"]) == (0, 0, 0)
    assert sdg["drop_marked"] == []
