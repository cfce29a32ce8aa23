"""Training plan, learning rate and optimizer."""

import dataclasses
import math
from typing import Any

import torch

from scripts.common.errors import UserError
from scripts.common.job import log

# The recipe shrinks its batch for data sets smaller than this, within these limits
SMALL_DATA = 2000
SMALL_BATCH = (16, 64)
WARMUP_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """Sizes and intervals, in optimizer steps."""

    batch_size: int
    micro_batch_size: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    checkpoint_every: int
    validate_every: int


def make_plan(examples: int, options: dict[str, Any]) -> TrainingPlan:
    """The plan for this much data; with ``auto_scale``, batch, warm-up and intervals shrink to fit small data.

    The batch is always a multiple of ``local_batch_size``.
    """
    batch, micro = options["global_batch_size"], options["local_batch_size"]
    notes = []
    if options["auto_scale"] and examples < SMALL_DATA and batch > SMALL_BATCH[0]:
        wanted = max(SMALL_BATCH[0], min(SMALL_BATCH[1], examples // 8))
        small = min(batch, max(micro, wanted - wanted % micro))
        if small != batch:
            notes.append(f"batch {batch} -> {small}")
            batch = small
    steps = max(1, examples // batch)
    total = steps * options["num_epochs"]
    if options["max_steps"] is not None and total > options["max_steps"]:
        notes.append(f"steps {total} -> {options['max_steps']} (finetune.max_steps)")
        total = options["max_steps"]
    warmup, checkpoint, validate = (
        options[name] for name in ("lr_warmup_steps", "checkpoint_every_steps", "val_every_steps")
    )
    if options["auto_scale"]:
        fitting = min(warmup, max(1, round(total * WARMUP_SHARE)))
        if fitting != warmup:
            notes.append(f"warm-up {warmup} -> {fitting}")
            warmup = fitting
        if total < 3 * checkpoint:
            checkpoint = max(1, total // 3)
        if total < 3 * validate:
            validate = max(1, total // 3)
    log.info(
        "Training plan: %d examples, batch %d, %d steps an epoch, %d in all, warm-up %d%s",
        *(examples, batch, steps, total, warmup, f" ({', '.join(notes)})" if notes else ""),
    )
    if total < 50:
        log.warning("only %d training steps: more documents or questions would help", total)
    return TrainingPlan(batch, min(micro, batch), steps, total, warmup, checkpoint, validate)


def learning_rate(step: int, plan: TrainingPlan, peak: float, decay: str) -> float:
    """Rate of step ``step`` (from 0): linear from a tenth of ``peak``, then cosine or linear to a hundredth."""
    if step < plan.warmup_steps:
        return peak * (0.1 + 0.9 * step / plan.warmup_steps)
    share = (step - plan.warmup_steps) / max(1, plan.total_steps - plan.warmup_steps)
    left = 0.5 * (1 + math.cos(math.pi * share)) if decay == "cosine" else 1 - share
    return peak * (0.01 + 0.99 * left)


def make_optimizer(model: torch.nn.Module, options: dict[str, Any], device: str) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) with float32 weights, no decay on biases and norms.

    Raises:
        UserError: The configured implementation is not installed.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": options["weight_decay"]},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    backend, rate = options["optimizer_backend"], options["learning_rate"]
    if backend in {"auto", "fused_adam"} and device == "cuda":
        try:
            from transformer_engine.pytorch.optimizers import FusedAdam

            return FusedAdam(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8)
        except ImportError:
            if backend == "fused_adam":
                raise UserError(
                    "finetune.optimizer_backend is fused_adam, but TransformerEngine is not installed; set it to auto."
                ) from None
    elif backend == "fused_adam":
        raise UserError("finetune.optimizer_backend is fused_adam, which needs a GPU; set it to auto or torch.")
    if backend == "flash_adamw":
        try:
            from flashoptim import FlashAdamW
        except ImportError as error:
            raise UserError(
                "finetune.optimizer_backend is flash_adamw, but flashoptim is not installed; set it to auto."
            ) from error
        return FlashAdamW(
            groups, lr=rate, betas=(0.9, 0.999), eps=1e-8, master_weight_bits=options["flash_adamw_master_weight_bits"]
        )
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8, fused=True)
