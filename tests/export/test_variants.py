"""Variants of an export: folders that can be served, with their quality, speed and size; none below its limit."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from scripts.common.beir import read_beir
from scripts.common.contract import Contract
from scripts.common.encoder import open_encoder
from scripts.common.errors import UserError
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.export.parity import Measured
from scripts.export.variants import check_outputs, open_graph, write_variants
from tests.export.conftest import exported_from


def test_variants_are_measured_and_can_be_opened(
    exported: Path,
    tiny_model: Path,
    test_set: Path,
    tmp_path: Path,
) -> None:
    lowest = {"fused": 0.9999, "fp16": 0.999, "int8": 0.98, "int8_static": 0.5}
    limits = {
        name.replace("fused", "fp32"): {"cosine": cosine, "agreement": 0.5, "ndcg_drop": 0.5}
        for name, cosine in lowest.items()
    }
    files = (exported / "contract.json", tiny_model / "contract.json")
    write_variants(*files, test_set, tmp_path / "variants", names=list(lowest), limits=limits)
    found = json.loads((tmp_path / "variants" / "variants.json").read_text())["variants"]
    assert list(found) == ["pytorch", "fp32", *lowest]
    assert found["int8"]["bytes"] < 0.35 * found["fp32"]["bytes"]
    for name, limit in lowest.items():
        assert found[name]["cosine"]["min"] >= limit
        low, high = found[name]["ndcg_difference_interval"]
        assert low <= found[name]["ndcg_difference"] <= high
        assert open_encoder(tmp_path / "variants" / name / "contract.json").encode(["a"], "query").shape == (1, 384)
    lines = (tmp_path / "variants" / "variants.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| fp32", *(f"| {name}" for name in lowest)]
    assert f"{found['int8']['ndcg']:.4f}" in lines[4 + list(found).index("int8") - 1]
    assert len((tmp_path / "variants" / "variants.csv").read_text().splitlines()) == len(lowest) + 2
    assert "int8_static" in (tmp_path / "variants" / "variants.svg").read_text()


def test_only_an_fp32_export_has_variants(tiny_model: Path, test_set: Path, tmp_path: Path) -> None:
    half = exported_from(tiny_model, tmp_path / "half", dtype="fp16")
    with pytest.raises(UserError, match=r"is fp16: set export\.export_dtype=fp32"):
        write_variants(
            half / "contract.json", tiny_model / "contract.json", test_set, tmp_path / "variants", names=[], limits={}
        )


def test_a_variant_that_forgot_to_normalise_is_seen(
    exported: Path, tiny_model: Path, test_set: Path, tmp_path: Path
) -> None:
    collection = read_beir(test_set)
    sound = open_graph(exported / "contract.json")
    reference = Measured.of(sound, collection)
    check_outputs(sound, reference, reference, collection)
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    contract = Contract.load(model / "contract.json")
    dataclasses.replace(contract, model=".", l2_normalize=False).save(model / "contract.json")
    unscaled = OnnxEncoder(sound.contract, exported_from(model, tmp_path / "onnx"))
    with pytest.raises(UserError, match="times as long"):
        check_outputs(unscaled, Measured.of(unscaled, collection), reference, collection)


def test_a_variant_below_its_limit_fails_and_leaves_nothing(
    exported: Path,
    tiny_model: Path,
    test_set: Path,
    tmp_path: Path,
) -> None:
    files = (exported / "contract.json", tiny_model / "contract.json")
    limits = {name: {"cosine": 0.99999, "agreement": 0, "ndcg_drop": 1} for name in ("fp32", "int8")}
    with pytest.raises(UserError, match=r"export\.parity\.int8\.cosine is 0.99999"):
        write_variants(*files, test_set, tmp_path / "variants", names=["int8"], limits=limits)
    assert not list(tmp_path.iterdir())
