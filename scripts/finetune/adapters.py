"""Low-rank adapters (Hu et al. 2021, "LoRA", arXiv:2106.09685), and the whole weights that they amount to."""

from typing import Any

import torch

from scripts.common.errors import UserError
from scripts.common.job import log


def with_adapters(model: torch.nn.Module, rank: int | None, alpha: float, seed: int) -> torch.nn.Module:
    """The model with adapters on all its linear layers, everything else frozen; without ``rank`` the model itself.

    Raises:
        UserError: peft is not installed.
    """
    if rank is None:
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UserError(
            "finetune.lora_rank needs peft, which is not installed: install the extra `lora`, or set it to null."
        ) from None
    torch.manual_seed(seed)
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear"))
    trained, whole = adapted.get_nb_trainable_parameters()
    log.info("training %d of %d weights (adapters of rank %d)", trained, whole, rank)
    return adapted


def plain_weights(model: Any) -> dict[str, torch.Tensor]:
    """The state dict of the model without adapters, which are added to the weights they adapt."""
    if not hasattr(model, "get_base_model"):
        return model.state_dict()
    base = model.get_base_model()
    added = {
        name: module.get_delta_weight("default")
        for name, module in base.named_modules()
        if hasattr(module, "get_delta_weight") and "default" in getattr(module, "lora_A", ())
    }
    weights = {}
    for name, value in base.state_dict().items():
        if ".lora_" in name:
            continue
        owner = name.replace(".base_layer.", ".").rpartition(".")
        plain = name.replace(".base_layer.", ".")
        weights[plain] = value + added[owner[0]] if owner[2] == "weight" and owner[0] in added else value
    return weights
