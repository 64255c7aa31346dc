import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny import copied, model_of, plan_of, random_batch, same_bits

from assay.train.config import TrainConfig
from assay.train.exact import TreeSum
from assay.train.gradients import backward
from assay.train.loop import train
from assay.train.optim import AdamWConfig, MuonConfig


def tree(leaves):
    """The sum by halves: the left one as large a power of two as fits."""
    if len(leaves) == 1:
        return leaves[0]
    left = 1 << (len(leaves) - 1).bit_length() - 1
    return tree(leaves[:left]) + tree(leaves[left:])


@given(values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=70))
def test_a_tree_sum_adds_in_the_order_that_the_number_of_leaves_fixes(values):
    leaves = [torch.tensor(value) for value in values]
    summed = TreeSum()
    for leaf in leaves:
        summed.add([leaf.clone(), -leaf])
    assert torch.equal(torch.stack(summed.total()), torch.stack([tree(leaves), -tree(leaves)]))


def after_training(micro_batches, *, steps=3, optimizer=None, exact_rows=2, **model_fields):
    model = model_of(**model_fields)
    optimizers = (optimizer or AdamWConfig()).build(model)
    fields = {"batch_size": 12, "micro_batches": micro_batches, "exact_rows": exact_rows}
    plan = plan_of(steps=steps, **fields)
    reports = list(train(model, lambda step: random_batch(step, rows=12), optimizers, plan))
    losses = [(report.loss_nats, report.grad_norm) for report in reports]
    return copied(model.state_dict()), copied(optimizers.state()), losses


@pytest.mark.parametrize("optimizer", [AdamWConfig(), MuonConfig()])
@pytest.mark.parametrize(
    "fields",
    [{"dropout": 0.3}, {"tie_embeddings": True}, {"position": "learned", "dropout": 0.1}],
)
@pytest.mark.shapes_checked_by_others
def test_every_cut_of_a_batch_gives_the_same_bits_in_exact_mode(optimizer, fields):
    whole = after_training(1, optimizer=optimizer, **fields)
    for micro_batches in (2, 3, 6):
        cut = after_training(micro_batches, optimizer=optimizer, **fields)
        assert same_bits(cut[0], whole[0])
        assert same_bits(cut[1], whole[1])
        assert cut[2] == whole[2]


def test_in_fast_mode_they_differ():
    """Else the test above would say nothing."""
    whole, cut = (after_training(n, exact_rows=None, dropout=0.3)[0] for n in (1, 3))
    assert not same_bits(whole, cut)


def test_exact_and_fast_mode_take_the_same_gradient_to_rounding():
    """In float64, where a sum of twelve parts is off by some 1e-16 of its largest."""
    gradients = []
    for exact_rows in (None, 1, 3):
        model = model_of().double()
        backward(model, random_batch(1, rows=12), plan_of(batch_size=12, exact_rows=exact_rows), 1)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for other in gradients[1:]:
        for one, two in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-13 * float(one.abs().max()))


def test_dropout_draws_anew_in_each_grain():
    """Twelve times the same sequence: with one draw for all grains their losses would be equal."""
    row = random_batch(1, rows=1)
    model = model_of(dropout=0.5).train()
    losses = []
    for rows in (1, 2):
        plan = plan_of(batch_size=2, exact_rows=rows)
        losses.append(float(backward(model, row.repeat(2, 1), plan, 1)))
        model.zero_grad()
    alone = plan_of(batch_size=1, exact_rows=1)
    first = float(backward(model, row, alone, 1))
    assert losses[0] != pytest.approx(first, abs=1e-6)


@pytest.mark.parametrize("rows", [5, 4, 12])
def test_grains_must_fit_the_micro_batches(rows):
    with pytest.raises(ValidationError, match=rf"exact_rows: {rows} found; expected a divisor"):
        TrainConfig(batch_size=12, micro_batches=2, exact_rows=rows)
