"""Variants of an export: folders that can be served, with their quality, speed and size; none below its limit."""

import json
from pathlib import Path

import pytest

from scripts.common.encoder import open_encoder
from scripts.common.errors import UserError
from scripts.export.variants import write_variants


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
