"""Variants of an export: folders that can be served, with their quality, speed and size; none below its limit."""

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.common.encoder import open_encoder
from scripts.common.errors import UserError
from scripts.export.variants import bootstrap, write_variants


def test_variants_are_measured_and_can_be_opened(
    exported: Path,
    tiny_model: Path,
    test_set: Path,
    tmp_path: Path,
) -> None:
    limits = {"fused": 0.9999, "fp16": 0.999, "int8": 0.98, "int8_static": 0.5}
    files = (exported / "contract.json", tiny_model / "contract.json")
    write_variants(*files, test_set, tmp_path / "variants", limits=limits)
    found = json.loads((tmp_path / "variants" / "variants.json").read_text())["variants"]
    assert list(found) == ["pytorch", "fp32", *limits]
    assert found["int8"]["bytes"] < 0.35 * found["fp32"]["bytes"]
    for name, limit in limits.items():
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
    with pytest.raises(UserError, match=r"export\.variants\.int8"):
        write_variants(*files, test_set, tmp_path / "variants", limits={"int8": 0.99999})
    assert not list(tmp_path.iterdir())


def test_interval_of_equal_scores_is_zero_and_of_different_ones_holds_their_mean() -> None:
    assert bootstrap(np.zeros(5)) == (0, 0)
    low, high = bootstrap(np.array([0.0, 1.0] * 50))
    assert 0.3 < low < 0.5 < high < 0.7
