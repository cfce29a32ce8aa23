"""Vectors with gradients, in parts that fit into memory, over one or several processes.

A contrastive loss needs all vectors of a batch at once, but its gradient reaches the model through each vector alone.
So the vectors are computed in parts, the loss and its gradient by vector come next, and then each part takes its
gradient on into the model. Parts whose activations do not fit are computed a second time for that (Gao et al. 2021,
"Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv:2101.06983).

Processes share the parts of a batch among them and sum vectors and gradients, so in-batch negatives reach over all of
them and the result is that of one process. Dropout is seeded by step and part: the second computation, another number
of processes and a resumed run all drop the same units.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch

from scripts.common.batching import padded_tokens, plan_batches
from scripts.common.contract import Contract
from scripts.common.encoder import pad
from scripts.common.pooling import normalize, pool
from scripts.finetune.world import World

# Tokens of a part, all threads on it
CPU_TOKEN_BUDGET, GPU_TOKEN_BUDGET = 2048, 65_536
LossOfVectors = Callable[[torch.Tensor], torch.Tensor]


class Student:
    """The model in training, from token rows to vectors and back.

    Args:
        model: The transformer.
        contract: Pooling and normalisation.
        device: ``cpu`` or ``cuda``.
        held_tokens: Tokens, padding included, whose activations are held at once.
        seed: Seed of dropout.
        world: The processes that share the work.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        contract: Contract,
        device: str,
        *,
        held_tokens: int,
        seed: int,
        world: World | None = None,
    ) -> None:
        self.model, self.contract, self.device = model, contract, device
        self.held_tokens, self.seed, self.world = held_tokens, seed, world or World()
        self.part_tokens = min(held_tokens, GPU_TOKEN_BUDGET if device == "cuda" else CPU_TOKEN_BUDGET)
        # (tokens, padding included) of the last batch, for the log
        self.tokens, self.padded = 0, 0

    def backward(self, rows: Sequence[Sequence[int]], loss_of: LossOfVectors, name: str) -> float:
        """Add the gradients of ``loss_of(vectors)`` to the model's; returns the loss.

        Args:
            rows: Token ids of each text.
            loss_of: The loss of the vectors ``[len(rows), dimension]``; every process computes the same one.
            name: What this batch is, to seed its dropout.

        Raises:
            FloatingPointError: The loss is not finite; the model has got no gradients then.
        """
        lengths = [len(row) for row in rows]
        parts = plan_batches(lengths, self.part_tokens)
        self.tokens, self.padded = sum(lengths), padded_tokens(lengths, parts)
        mine = list(range(self.world.rank, len(parts), self.world.size))
        vectors = torch.zeros(len(rows), self.contract.dimension, device=self.device)
        held: dict[int, torch.Tensor] = {}
        room = self.held_tokens
        # those that are held come first: longest texts, whose second computation would cost most
        for number in mine:
            room -= len(parts[number]) * max(lengths[index] for index in parts[number])
            with torch.set_grad_enabled(room >= 0):
                encoded = self._encode(rows, parts[number], f"{name}:{number}")
            vectors[parts[number]] = encoded.detach()
            if room >= 0:
                held[number] = encoded
        self.world.sum(vectors)
        vectors.requires_grad_()
        loss = loss_of(vectors)
        value = float(loss.detach())
        if not torch.isfinite(loss.detach()):
            raise FloatingPointError(value)
        loss.backward()
        for number in mine:
            encoded = held.pop(number, None)
            if encoded is None:
                encoded = self._encode(rows, parts[number], f"{name}:{number}")
            encoded.backward(vectors.grad[parts[number]])
        return value

    def _encode(self, rows: Sequence[Sequence[int]], part: Sequence[int], name: str) -> torch.Tensor:
        torch.manual_seed(_seed(self.seed, name))
        ids, mask = (torch.from_numpy(array).to(self.device) for array in pad([rows[index] for index in part]))
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            vectors = pool(hidden, mask, self.contract.pooling)
        return normalize(vectors) if self.contract.l2_normalize else vectors


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big")
