"""Batches within a token budget, and an encoder whose vectors do not depend on how texts are batched."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.common import encoder as encoder_module
from scripts.common.batching import padded_tokens, plan_batches
from scripts.common.encoder import TorchEncoder, open_encoder, pad
from scripts.common.errors import UserError

TEXTS = [
    "heat",
    "",
    "what is the lift of a wing at low speed",
    "heat",
    "a boundary layer " * 12,
    "shock waves in air " * 60,
    "日本語",
]


@given(lengths=st.lists(st.integers(1, 300), max_size=60), budget=st.integers(1, 600))
def test_batches_hold_each_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
    widths = [max(lengths[i] for i in batch) for batch in batches]
    assert widths == sorted(widths, reverse=True), "longest first, so that memory peaks at once"
    assert padded_tokens(lengths, batches) >= sum(lengths)


def test_sorted_batches_pad_little() -> None:
    lengths = np.random.default_rng(0).integers(8, 257, 2000).tolist()
    assert padded_tokens(lengths, plan_batches(lengths, 2048)) <= 1.02 * sum(lengths)
    # as they come, in batches of 32, half of the work would be padding
    assert padded_tokens(lengths, [list(range(n, min(n + 32, 2000))) for n in range(0, 2000, 32)]) > 1.8 * sum(lengths)


def test_padding_stands_on_the_right_and_is_masked() -> None:
    ids, mask = pad([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == np.int64


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> TorchEncoder:
    found = open_encoder(tiny_model / "contract.json", device="cpu")
    assert isinstance(found, TorchEncoder)
    return found


def test_vectors_are_sentence_transformers(tiny_model: Path, encoder: TorchEncoder) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(tiny_model), max_seq_length=128)
    model = SentenceTransformer(modules=[transformer, Pooling(384, pooling_mode="mean"), Normalize()], device="cpu")
    np.testing.assert_allclose(encoder.encode(TEXTS, "passage"), model.encode(TEXTS), atol=2e-6)
    model.max_seq_length = 64
    queries = model.encode([f"query: {text}" for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS, "query"), queries, atol=2e-6)


@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_batching_changes_nothing(encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    alone = np.concatenate([encoder.encode([text], "passage") for text in TEXTS])
    monkeypatch.setattr(encoder, "token_budget", budget)
    # windows smaller than the list: order is kept across them
    monkeypatch.setattr(encoder_module, "WINDOW", 3)
    np.testing.assert_allclose(encoder.encode(TEXTS, "passage"), alone, atol=2e-6)
    indices = [index for batch, _ in encoder.batches(TEXTS, "passage") for index in batch]
    assert sorted(indices) == list(range(len(TEXTS)))


def test_padding_is_counted(tiny_model: Path) -> None:
    encoder = open_encoder(tiny_model / "contract.json", device="cpu")
    assert isinstance(encoder, TorchEncoder)
    lengths = [len(ids) for ids in encoder.tokenize(TEXTS, "passage")]
    encoder.encode(TEXTS, "passage")
    assert encoder.tokens == sum(lengths)
    assert encoder.tokens + encoder.padding == padded_tokens(lengths, plan_batches(lengths, encoder.token_budget))


def test_texts_are_cut_at_the_contracts_length(encoder: TorchEncoder) -> None:
    assert [max(map(len, encoder.tokenize(TEXTS, side))) for side in ("query", "passage")] == [64, 128]
    cut = " ".join(["shock"] * 126)
    np.testing.assert_allclose(*encoder.encode([cut, f"{cut} and what follows"], "passage"), atol=1e-6)


def test_several_devices_side_by_side_give_the_same_in_order(tiny_model: Path, encoder: TorchEncoder) -> None:
    contract = dataclasses.replace(encoder.contract)
    several = TorchEncoder(contract, tiny_model, device="cpu")
    # two names of one processor stand for two GPUs, each with a copy of the model
    several.replicate(["cpu", "cpu:0"])
    several.token_budget = 64
    texts = [f"{text} {number}" for number in range(12) for text in TEXTS[:3]]
    np.testing.assert_allclose(several.encode(texts, "passage"), encoder.encode(texts, "passage"), atol=2e-6)


def test_threads_are_shared_out_among_batches(tiny_model: Path, encoder: TorchEncoder) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        streams = TorchEncoder(encoder.contract, tiny_model, device="cpu")
        assert (streams.parallel, streams.threads) == (3, 1)
        streams.token_budget = 64
        texts = [f"{text} {number}" for number in range(12) for text in TEXTS[:3]]
        np.testing.assert_allclose(streams.encode(texts, "passage"), encoder.encode(texts, "passage"), atol=2e-6)
        assert torch.get_num_threads() == 3, "training goes on with all of them"
        torch.set_num_threads(20)
        assert (TorchEncoder(encoder.contract, tiny_model, device="cpu")).parallel == 8
        assert (
            TorchEncoder(encoder.contract, tiny_model, device="cpu")
        ).token_budget == 2 * encoder_module.CPU_TOKEN_BUDGET
    finally:
        torch.set_num_threads(before)


def test_other_weights_are_refused(encoder: TorchEncoder, tiny_model: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(tiny_model / name, tmp_path / name)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    dataclasses.replace(encoder.contract, model=".").save(tmp_path / "contract.json")
    with pytest.raises(UserError, match="are not those of"):
        open_encoder(tmp_path / "contract.json")


def test_a_gpu_that_is_not_there(tiny_model: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=r"vectors\.device is cuda"):
        open_encoder(tiny_model / "contract.json", device="cuda")
