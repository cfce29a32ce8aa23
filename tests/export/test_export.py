"""The export and its parity gate: sound exports of all kinds pass, damaged ones fail, and others can use the folder."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from scripts.common.beir import read_beir
from scripts.common.contract import Contract, check_against_folder, weights_digest
from scripts.common.encoder import open_encoder, pad
from scripts.common.errors import UserError
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.common.onnx_graph import gather_weights
from scripts.export.export import export
from scripts.export.parity import Measured, check_lengths, subset
from scripts.export.plan import sequence_lengths
from scripts.vectors.contract import write_contract
from tests.conftest import MODEL_OPTIONS
from tests.export.conftest import TEXTS, exported_from

LIMITS = {
    "fp32": {"cosine": 0.9999, "agreement": 0.99, "ndcg_drop": 0.002},
    "fp16": {"cosine": 0.999, "agreement": 0.9, "ndcg_drop": 0.01},
}


def gate(model: Path, folder: Path, test_set: Path, target: Path, *, draw: bool = False, **limits: float) -> None:
    figure = {kind: target.with_name(f"parity.{kind}") for kind in ("svg", "png", "csv")}
    export(
        model / "contract.json",
        folder / "contract.json",
        test_set,
        target,
        samples=8,
        limits={name: values | limits for name, values in LIMITS.items()},
        figure=figure if draw else None,
    )


def test_a_sound_export_passes_and_every_file_is_listed_with_its_checksum(
    tiny_model: Path, exported: Path, test_set: Path, tmp_path: Path
) -> None:
    gate(tiny_model, exported, test_set, tmp_path / "export.json", draw=True)
    found = json.loads((tmp_path / "export.json").read_text())
    parity = found["parity"]
    assert parity["min_cosine"] == parity["cosine"]["min"] > 0.9999
    assert (parity["top_10_agreement"], parity["ndcg_difference_interval"]) == (1, [0, 0])
    assert (parity["queries"], parity["passages"]) == (2, 4)
    rows = (tmp_path / "parity.csv").read_text().splitlines()
    assert (rows[0], len(rows)) == ("side,cosine", 7)
    assert "<svg" in (tmp_path / "parity.svg").read_text()
    assert (tmp_path / "parity.png").stat().st_size > 1000
    assert not (tmp_path / "refused").exists()
    assert found["contract"]["source_sha256"] == Contract.load(tiny_model / "contract.json").weights_sha256
    assert found["dtype"] == "fp32"
    assert {Path(name).name for name in found["files"]} >= {"model.onnx", "tokenizer.json", "contract.json"}
    graph = onnx.load(exported / "model.onnx")
    assert [item.name for item in graph.graph.input] == ["input_ids", "attention_mask", "dimensions"]
    axes = [dim.dim_param for dim in graph.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch_size", "seq_length"]
    assert [item.name for item in graph.graph.output] == ["embeddings"]


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_flipped_weights_fail_the_gate(
    tiny_model: Path, exported: Path, test_set: Path, tmp_path: Path, share: float
) -> None:
    damaged = Path(shutil.copytree(exported, tmp_path / "onnx"))
    flip(damaged / "model.onnx", share)
    # the digest alone catches a change on disk ...
    with pytest.raises(UserError, match="not those of"):
        gate(tiny_model, damaged, test_set, tmp_path / "export.json")
    # ... and the vectors one that was there when the contract was written
    contract = Contract.load(damaged / "contract.json")
    dataclasses.replace(contract, weights_sha256=weights_digest(damaged)).save(damaged / "contract.json")
    with pytest.raises(UserError, match=r"(?s)fails the parity check.*refused/parity\.svg"):
        gate(tiny_model, damaged, test_set, tmp_path / "export.json", draw=True)
    assert not (tmp_path / "export.json").exists()
    # Snakemake deletes what a failed job declares; the figure that shows what is wrong is elsewhere
    assert not (tmp_path / "parity.svg").exists()
    assert sorted(path.name for path in (tmp_path / "refused").iterdir()) == ["parity.csv", "parity.png", "parity.svg"]


def test_a_damaged_graph_for_loaders_fails_the_gate_too(tiny_model: Path, test_set: Path, tmp_path: Path) -> None:
    folder = exported_from(tiny_model, tmp_path / "onnx", for_loaders=True)
    gate(tiny_model, folder, test_set, tmp_path / "export.json")
    found = json.loads((tmp_path / "export.json").read_text())
    assert found["parity"]["loaders"]["min_cosine"] > 0.9999
    flip(folder / "sentence_transformers" / "model.onnx", 1.0)
    with pytest.raises(UserError, match=r"sentence_transformers fails the parity check"):
        gate(tiny_model, folder, test_set, tmp_path / "export.json")


def flip(path: Path, share: float) -> None:
    """Change the signs in a share of the rows of the largest layer's weights."""
    graph = onnx.load(path)
    tensor = max(
        (item for item in graph.graph.initializer if len(item.dims) == 2 and item.dims[0] < 2000),
        key=lambda item: np.prod(item.dims),
    )
    weights = onnx.numpy_helper.to_array(tensor).copy()
    weights[: max(1, int(share * len(weights)))] *= -1
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    onnx.save(graph, path)


@pytest.mark.parametrize("pooling", ["avg", "cls", "last"])
def test_poolings_of_an_encoder(tiny_model: Path, tmp_path: Path, pooling: str, test_set: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    contract = Contract.load(model / "contract.json")
    dataclasses.replace(contract, pooling=pooling, model=".").save(model / "contract.json")
    gate(model, exported_from(model, tmp_path / "onnx", for_loaders=True), test_set, tmp_path / "export.json")


@pytest.mark.parametrize("pooling", ["avg", "last"])
def test_decoder_of_the_llama_family(tiny_model: Path, tmp_path: Path, pooling: str, test_set: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    model = tmp_path / "llama"
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaModel(
        LlamaConfig(vocab_size=30522, num_key_value_heads=2, max_position_embeddings=256, **shape)
    ).save_pretrained(model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny_model / name, model / name)
    write_contract({**MODEL_OPTIONS, "base_model": str(model), "pooling": pooling}, model / "contract.json")
    gate(model, exported_from(model, tmp_path / "onnx"), test_set, tmp_path / "export.json")


def test_half_precision_export_is_near(tiny_model: Path, test_set: Path, tmp_path: Path) -> None:
    folder = exported_from(tiny_model, tmp_path / "onnx", dtype="fp16")
    gate(tiny_model, folder, test_set, tmp_path / "export.json")
    assert json.loads((tmp_path / "export.json").read_text())["dtype"] == "fp16"


def test_dimensions_may_differ_by_row_without_nan(exported: Path) -> None:
    encoder = open_encoder(exported / "contract.json")
    assert isinstance(encoder, OnnxEncoder)
    sizes = np.array([1, 384, 16, 200])
    vectors = encoder.forward(*pad(encoder.tokenize(TEXTS, "passage")), sizes)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert [np.flatnonzero(row)[-1] < size for row, size in zip(vectors, sizes, strict=True)] == [True] * 4


def test_plain_onnx_runtime_gives_the_checkpoints_vectors(tiny_model: Path, exported: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported / "model.onnx"), providers=["CPUExecutionProvider"])
    encoder = open_encoder(tiny_model / "contract.json", device="cpu")
    ids, mask = pad(encoder.tokenize(TEXTS, "passage"))
    feed = {"input_ids": ids, "attention_mask": mask, "dimensions": np.full(len(ids), 384)}
    np.testing.assert_allclose(session.run(None, feed)[0], encoder.encode(TEXTS, "passage"), atol=1e-5)


def test_the_folder_serves_loaders_that_pool_themselves(tiny_model: Path, test_set: Path, tmp_path: Path) -> None:
    import onnxruntime

    folder = exported_from(tiny_model, tmp_path / "onnx", for_loaders=True)
    gate(tiny_model, folder, test_set, tmp_path / "export.json")
    session = onnxruntime.InferenceSession(
        str(folder / "sentence_transformers" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    assert [item.name for item in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [item.name for item in session.get_outputs()] == ["last_hidden_state"]
    encoder = open_encoder(folder / "contract.json")
    ids, mask = pad(encoder.tokenize(TEXTS, "passage"))
    states = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    means = (states * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, encoder.encode(TEXTS, "passage"), atol=1e-5)
    # what the folder says of itself is what the contract says
    contract = Contract.load(folder / "contract.json")
    check_against_folder({**dataclasses.asdict(contract), "base_model": "."}, folder / "sentence_transformers")


def test_sentence_transformers_loads_the_folder(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("optimum.onnxruntime", reason="optimum-onnx 0.1 does not go with transformers 5")
    from sentence_transformers import SentenceTransformer

    folder = exported_from(tiny_model, tmp_path / "onnx", for_loaders=True)
    theirs = SentenceTransformer(str(folder / "sentence_transformers"), backend="onnx").encode(
        TEXTS, prompt_name="document"
    )
    np.testing.assert_allclose(theirs, open_encoder(folder / "contract.json").encode(TEXTS, "passage"), atol=1e-5)


def test_large_weights_go_into_one_file_beside_the_graph(exported: Path, tmp_path: Path) -> None:
    traced = tmp_path / "traced" / "model.onnx"
    traced.parent.mkdir()
    shutil.copyfile(exported / "model.onnx", traced)
    gather_weights(traced, tmp_path / "model.onnx", limit=1_000_000)
    assert (tmp_path / "model.onnx.data").stat().st_size > 1_000_000 > (tmp_path / "model.onnx").stat().st_size


def test_a_graph_that_forgets_to_normalise_is_seen() -> None:
    good = np.eye(2)
    check_lengths(good, good, ["a", "b"])
    with pytest.raises(UserError, match=r"b is 2\.0000 times as long"):
        check_lengths(np.array([[1, 0], [0, 2]]), good, ["a", "b"])


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"agreement": 1.1}, r"parity\.fp32\.agreement is 1\.1"),
        ({"ndcg_drop": -0.1}, r"nDCG@10 changes by \+0\.0000 .*parity\.fp32"),
    ],
    ids=["agreement", "ndcg"],
)
def test_results_beyond_their_limits_fail_too(
    tiny_model: Path, exported: Path, test_set: Path, tmp_path: Path, limit: dict[str, float], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        gate(tiny_model, exported, test_set, tmp_path / "export.json", **limit)


def test_equal_passages_in_another_order_agree() -> None:
    rng = np.random.default_rng(0)
    passages = rng.standard_normal((30, 8)).astype(np.float32)
    passages /= np.linalg.norm(passages, axis=1, keepdims=True)
    passages = np.concatenate([passages, passages])
    noise = passages + 1e-7 * rng.standard_normal(passages.shape).astype(np.float32)
    reference, ours = Measured(passages[:9], passages, 1), Measured(passages[:9], noise, 1)
    assert ours.agreement(reference) == 1
    assert Measured(-passages[:9], noise, 1).agreement(reference) < 0.5


def test_a_part_of_a_collection_keeps_the_judged_passages_of_its_queries(test_set: Path) -> None:
    whole = read_beir(test_set)
    part = subset(whole, 4)
    assert len(part.queries) == 1
    assert set(part.qrels) == set(part.queries)
    assert {name for judged in part.qrels.values() for name in judged} <= set(part.corpus)
    assert len(part.corpus) == 3
    assert subset(whole, 1000).corpus.keys() == whole.corpus.keys()


def test_profile_shorter_than_training_is_an_error(exported: Path) -> None:
    contract = Contract.load(exported / "contract.json")
    options = {"trt_min_seq_len": 3, "trt_opt_seq_len": 64, "trt_max_seq_len": None}
    assert sequence_lengths(options, contract) == (3, 64, 128)
    with pytest.raises(UserError, match="up to 128 tokens"):
        sequence_lengths({**options, "trt_max_seq_len": 127}, contract)
