"""Plan, rate and optimizer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scripts.common.errors import UserError
from scripts.finetune.examples import Example, TrainingData, epoch_batches, share_of_documents, usable
from scripts.finetune.schedule import learning_rate, make_optimizer, make_plan
from tests.finetune.conftest import OPTIONS

RECIPE = {
    **OPTIONS,
    "global_batch_size": 128,
    "local_batch_size": 4,
    "num_epochs": 3,
    "auto_scale": True,
    "lr_warmup_steps": 5,
    "checkpoint_every_steps": 100,
    "val_every_steps": 100,
}


@given(
    st.integers(1, 5000),
    st.integers(1, 64).flatmap(lambda part: st.tuples(st.just(part), st.integers(1, 8).map(lambda n: n * part))),
    st.booleans(),
)
def test_a_plan_always_divides_and_fits(examples: int, sizes: tuple[int, int], auto: bool) -> None:
    local, whole = sizes
    plan = make_plan(examples, {**RECIPE, "local_batch_size": local, "global_batch_size": whole, "auto_scale": auto})
    assert plan.batch_size % plan.micro_batch_size == 0
    assert plan.batch_size <= whole
    assert plan.steps_per_epoch == max(1, examples // plan.batch_size)
    assert plan.total_steps == 3 * plan.steps_per_epoch
    if auto:
        assert plan.warmup_steps <= max(1, round(plan.total_steps / 10))
        assert plan.validate_every <= max(1, plan.total_steps)


def test_scaling_can_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "embed-recipe")
    assert make_plan(300, {**RECIPE, "auto_scale": False}).batch_size == 128
    assert make_plan(300, RECIPE).batch_size == 36
    assert "batch 128 -> 36" in caplog.text
    assert "Training plan" in caplog.text


def test_steps_are_bounded_and_the_rate_falls_by_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "embed-recipe")
    plan = make_plan(1000, {**RECIPE, "max_steps": 12})
    assert (plan.steps_per_epoch, plan.total_steps) == (15, 12)
    assert "steps 45 -> 12 (finetune.max_steps)" in caplog.text
    assert plan.validate_every <= 12
    assert learning_rate(plan.total_steps, plan, 1.0, "cosine") == pytest.approx(0.01)
    assert make_plan(1000, {**RECIPE, "max_steps": 99}).total_steps == 45


def test_the_rate_rises_falls_and_ends_at_a_hundredth() -> None:
    plan = make_plan(6400, {**RECIPE, "auto_scale": False})
    for style in ("cosine", "linear"):
        rates = [learning_rate(step, plan, 1.0, style) for step in range(plan.total_steps + 1)]
        assert rates[0] == pytest.approx(0.1)
        assert rates[5] == max(rates) == pytest.approx(1.0)
        assert rates[-1] == pytest.approx(0.01)
        assert rates[5:] == sorted(rates[5:], reverse=True)


def test_biases_and_norms_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    groups = make_optimizer(model, OPTIONS, "cpu").param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.01), (3, 0.0)]
    with pytest.raises(UserError, match="optimizer_backend is fused_adam"):
        make_optimizer(model, {**OPTIONS, "optimizer_backend": "fused_adam"}, "cpu")


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 3))
def test_an_epoch_uses_each_example_once(count: int, size: int, epoch: int) -> None:
    examples = [Example(f"q{number}", "p", (), frozenset()) for number in range(count)]
    batches = list(epoch_batches(examples, size, 1, epoch))
    assert len(batches) == max(1, count // size)
    assert sorted(example.question for batch in batches for example in batch) == sorted(e.question for e in examples)
    assert batches == list(epoch_batches(examples, size, 1, epoch))
    lengths = [len(batch) for batch in batches]
    assert max(lengths) - min(lengths) <= 1


def test_shares_of_documents_are_nested() -> None:
    from scripts.common.passages import Passage

    passages = {f"p{number}": Passage(str(number), [f"d{number // 2}"]) for number in range(80)}
    data = TrainingData([Example(f"q{name}", name, (), frozenset()) for name in passages], passages)
    quarter, half, whole = (share_of_documents(data, share) for share in (0.25, 0.5, 1.0))
    assert (len(quarter), len(half), len(whole)) == (20, 40, 80)
    assert set(quarter) < set(half) < set(whole)


def test_examples_without_negatives_need_in_batch_negatives() -> None:
    examples = [Example("q", "p", (), frozenset({"p"}))]
    assert usable(examples, in_batch=True, most=None) == examples
    with pytest.raises(UserError, match="in_batch_negatives"):
        usable(examples, in_batch=False, most=None)
    with pytest.raises(UserError, match="has no example"):
        usable([], in_batch=True, most=None)
