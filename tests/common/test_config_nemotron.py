"""config/nemotron.yaml against the recipe's reference page.

Source of the values: NVIDIA-NeMo/Nemotron at commit 306b2f1, skills/nemotron-retrieval-recipes/references/embed.md
("Important Defaults", "Data And Credential Safety", "Grounding Paths"); stage folders follow from ``output_dir``.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.common.config import options, resolve

CONFIG = Path(__file__).parents[2] / "config"
EMBEDDED = yaml.safe_load((CONFIG / "config.yaml").read_text(encoding="utf-8"))
NEMOTRON = yaml.safe_load((CONFIG / "nemotron.yaml").read_text(encoding="utf-8"))

REFERENCE_PAGE: dict[str, Any] = {
    "output_dir": "./output/embed",
    # stage 0
    "corpus_dir": (
        "hf://nvidia/Retrieval-Synthetic-NVDocs-v1@1c0d1856f3fb595b2dda98d4b61061fa6d782d51/sample_corpus/nv_pp_random"
    ),
    "llm.providers": {
        "nvidia": {"base_url": "https://integrate.api.nvidia.com/v1", "api_key_env": "NVIDIA_API_KEY"},
    },
    "sdg.artifact_extraction_model": "nvidia/nemotron-3-nano-30b-a3b",
    "sdg.qa_generation_model": "nvidia/nemotron-3-nano-30b-a3b",
    "sdg.quality_judge_model": "nvidia/nemotron-3-nano-30b-a3b",
    "sdg.embed_model": "nvidia/llama-3.2-nv-embedqa-1b-v2",
    # stage 1
    "model.base_model": "nvidia/llama-nemotron-embed-1b-v2",
    "prep.quality_threshold": 7.0,
    "prep.train_ratio": 0.8,
    "prep.val_ratio": 0,
    "prep.test_ratio": 0.2,
    "prep.hard_negatives_to_mine": 5,
    "prep.hard_neg_margin": 0.95,
    "prep.mining_batch_size": 128,
    # stage 2
    "finetune.num_epochs": 3,
    "finetune.global_batch_size": 128,
    "finetune.local_batch_size": 4,
    "finetune.learning_rate": 1.0e-5,
    "finetune.temperature": 0.02,
    "finetune.train_n_passages": 5,
    "model.query_prefix": "query:",
    "model.passage_prefix": "passage:",
    # stage 3
    "eval.k_values": [1, 5, 10, 100],
    "eval.eval_base": True,
    "eval.eval_finetuned": True,
    "eval.eval_nim": False,
    # null: the workflow's own split and checkpoint, at the recipe's paths below output_dir
    "eval.eval_data_path": None,
    "eval.finetuned_model_path": None,
    # stage 4
    "export.attn_implementation": "eager",
    "export.export_to_trt": False,
    "export.model_path": None,
    # stage 5
    "deploy.nim_image": "nvcr.io/nim/nvidia/llama-3.2-nv-embedqa-1b-v2:1.10.1",
    "deploy.container_name": "nemotron-embed-nim",
    "deploy.host_port": 8000,
    "deploy.use_onnx": True,
    "deploy.detach": False,
    "deploy.ngc_api_key_env": "NGC_API_KEY",
    "eval.nim_url": "http://localhost:8000",
    "eval.nim_model": "nvidia/llama-3.2-nv-embedqa-1b-v2",
}
# The recipe's defaults that the page does not name (stage configurations at the same commit)
STAGE_CONFIGS: dict[str, Any] = {
    "corpus_id": "nv_pp_random",
    "sdg.num_pairs": 10,
    "sdg.sentences_per_chunk": 5,
    "sdg.min_text_length": 50,
    "sdg.num_sections": 1,
    "sdg.max_artifacts_per_type": 2,
    "sdg.min_hops": 1,
    "sdg.max_hops": 3,
    "sdg.min_complexity": 2,
    "sdg.similarity_threshold": 0.9,
    "sdg.file_extensions": None,
    "sdg.preview": False,
    "prep.max_pos_docs": 5,
    "prep.conversion_seed": 42,
    "prep.hard_neg_margin_type": "perc",
    "prep.corpus_chunk_size": 50000,
    "model.trust_remote_code": True,
    "model.pooling": "avg",
    "model.l2_normalize": True,
    "model.query_max_length": 512,
    "model.passage_max_length": 512,
    "finetune.lr_warmup_steps": 5,
    "finetune.lr_decay_style": "cosine",
    "finetune.weight_decay": 0.01,
    "finetune.optimizer_backend": "auto",
    "finetune.flash_adamw_master_weight_bits": 32,
    "finetune.checkpoint_every_steps": 100,
    "finetune.val_every_steps": 100,
    "eval.nim_batch_size": 32,
    "eval.nim_timeout": 60,
    "export.opset": 17,
    "export.export_dtype": "fp32",
    "export.use_dimension_arg": True,
    "export.quant_cfg": None,
    "export.calibration_batch_size": 64,
    "export.override_layers_to_fp32": ["/model/norm/", "/pooling_module", "/ReduceL2", "/Div"],
    "deploy.container_port": 8000,
    "deploy.gpus": "all",
    "deploy.shm_size": "2gb",
    "deploy.health_check_timeout": 120,
    "deploy.health_check_interval": 5,
    "deploy.container_model_path": "/opt/nim/custom_model",
    "deploy.container_cache_path": "/opt/nim/.cache",
    "deploy.remove_on_exit": True,
}
SECRETS_BY_NAME = {"llm.providers.nvidia.api_key_env": "NVIDIA_API_KEY", "deploy.ngc_api_key_env": "NGC_API_KEY"}


def look_up(config: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        config = config[part]
    return config


def overlaid() -> dict[str, Any]:
    """What ``--configfile config/nemotron.yaml`` gives: Snakemake lays it over config/config.yaml by section."""
    merged = {**EMBEDDED}
    for key, value in NEMOTRON.items():
        merged[key] = {**EMBEDDED.get(key, {}), **value} if isinstance(value, dict) else value
    return resolve(merged)


@pytest.mark.parametrize("name", [*REFERENCE_PAGE, *STAGE_CONFIGS])
def test_value_is_the_recipes(name: str) -> None:
    assert look_up(overlaid(), name) == {**REFERENCE_PAGE, **STAGE_CONFIGS}[name]


@pytest.mark.parametrize("name", [name for name in REFERENCE_PAGE if REFERENCE_PAGE[name] is not None])
def test_values_of_the_page_stand_in_the_file_itself(name: str) -> None:
    assert look_up(NEMOTRON, name) == REFERENCE_PAGE[name]


def test_nothing_of_the_embedded_default_shines_through() -> None:
    seed = {name: option["default"] for name, option in options().items()}
    allowed = {
        # in the recipe, the file's own choices: hardware and what the recipe does not have
        "vectors.device",
        "output_dir",
    }
    found = overlaid()
    different = {name for name in seed if look_up(found, name) != seed[name] and name not in allowed}
    assert different == set()


def test_keys_are_named_and_never_held() -> None:
    config = overlaid()
    for name, variable in SECRETS_BY_NAME.items():
        assert look_up(config, name) == variable


def test_text_goes_nowhere_before_someone_consents() -> None:
    assert overlaid()["allow_egress"] == []
