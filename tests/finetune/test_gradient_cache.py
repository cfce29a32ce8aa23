"""Gradients computed by parts are those of the whole batch."""

import dataclasses
from pathlib import Path

import pytest
import torch

from scripts.common.contract import Contract
from scripts.common.encoder import load_model, pad
from scripts.common.pooling import normalize, pool
from scripts.finetune.gradient_cache import Student

ROWS = [[101, *range(2000, 2000 + length), 102] for length in (3, 40, 7, 25, 12, 31)]


def loss_of(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(vectors[:3] @ vectors[3:].T / 0.05, torch.arange(3))


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("pooling", ["avg", "cls"])
def test_parts_give_the_gradients_of_one_plain_pass(tiny_model: Path, pooling: str) -> None:
    contract = dataclasses.replace(Contract.load(tiny_model / "contract.json"), pooling=pooling)
    model = load_model(tiny_model, contract).eval()
    ids, mask = map(torch.from_numpy, pad(ROWS))
    plain = loss_of(normalize(pool(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask, pooling)))
    plain.backward()
    expected = gradients(model)
    loss = Student(model, contract, "cpu", held_tokens=64, seed=1).backward(ROWS, loss_of, "0")
    assert loss == pytest.approx(float(plain), rel=1e-5)
    found = gradients(model)
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)


def test_a_second_computation_drops_the_same_units(tiny_model: Path) -> None:
    contract = Contract.load(tiny_model / "contract.json")
    model = load_model(tiny_model, contract).train()
    held, cached, other = (Student(model, contract, "cpu", held_tokens=64, seed=seed) for seed in (1, 1, 2))
    held.held_tokens = 10_000
    losses, found = [], []
    for student in (held, cached, other):
        losses.append(student.backward(ROWS, loss_of, "7"))
        found.append(gradients(model))
    assert losses[0] == losses[1] != losses[2]
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    losses.append(held.backward(ROWS, loss_of, "8"))
    assert losses[3] != losses[0]
    assert held.tokens == sum(map(len, ROWS)) <= held.padded


def test_a_loss_that_is_not_finite_is_an_error_and_no_gradient(tiny_model: Path) -> None:
    contract = Contract.load(tiny_model / "contract.json")
    model = load_model(tiny_model, contract)
    with pytest.raises(FloatingPointError):
        Student(model, contract, "cpu", held_tokens=64, seed=1).backward(ROWS, lambda v: loss_of(v) * float("nan"), "0")
    assert not gradients(model)
