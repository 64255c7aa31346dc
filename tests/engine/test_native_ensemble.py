"""Models that the C++ kernels train beside each other, each to the bits that it has alone."""

import dataclasses

import pytest
import torch

from assay.engine.native_ensemble import EnsembleMember
from assay.engine.vmap_ensemble import train_members
from assay.errors import ConfigError, DivergedError
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode
from assay.train.config import TrainConfig
from assay.train.loop import train
from assay.train.native_backend import multiplies_bf16
from assay.train.optim import AdamWConfig, MuonConfig
from assay.train.plan import ExecutionPlan

VOCAB, LENGTH, STEPS = 31, 20, 4


@pytest.fixture(autouse=True)
def _with_kernels(native):
    torch.set_num_threads(2)


def batches_of(seed):
    def batch_at(step):
        draw = torch.Generator().manual_seed(1000 * seed + step)
        return torch.randint(VOCAB, (4, LENGTH + 1), generator=draw)

    return batch_at


def member(seed, *, optimizer="adamw", bf16=False, start=0, shape=None, **train_fields):
    """A replica whose seed, rate, decay, schedule and clipping depend on `seed`."""
    fields = {
        "seed": seed,
        "steps": STEPS,
        "batch_size": 4,
        "schedule": ["cosine", "linear", "wsd"][seed % 3],
        "clip_norm": [1.0, None, 0.3][seed % 3],
    }
    usual = {"vocab_size": VOCAB, "max_seq_len": LENGTH, "d_model": 32, "n_layers": 2}
    usual |= {"dropout": 0.2, "mixer": {"kind": "attention", "dropout": 0.1}}
    model = GPT.create(decode(ModelConfig, usual | (shape or {})), seed=seed)
    cls = MuonConfig if optimizer == "muon" else AdamWConfig
    config = cls(lr=0.002 * (seed + 1), weight_decay=0.1 * seed)
    plan = ExecutionPlan(
        decode(TrainConfig, fields | train_fields), torch.device("cpu"), bf16, native=True
    )
    return EnsembleMember(model, batches_of(seed), config.build(model), plan, start)


def alone(one):
    return list(train(one.model, one.batch_at, one.optimizers, one.plan, start=one.start))


def together(members):
    rounds = list(train_members(members))
    return [[r for r in column if r is not None] for column in zip(*rounds, strict=True)]


def untimed(report):
    return dataclasses.replace(report, elapsed_s=0.0)


def assert_same_bits(found, expected, one, twin):
    assert [untimed(report) for report in found] == [untimed(report) for report in expected]
    for ours, theirs in (
        (one.model.state_dict(), twin.model.state_dict()),
        (one.optimizers.state(), twin.optimizers.state()),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_replicas_have_the_bits_of_the_models_trained_alone(optimizer, bf16, micro_batches):
    if bf16 and not multiplies_bf16():
        pytest.skip("this processor has no products of bfloat16")
    fields = {"optimizer": optimizer, "bf16": bf16, "micro_batches": micro_batches}
    members, twins = ([member(seed, **fields) for seed in range(3)] for _ in range(2))
    found = together(members)
    for one, twin, reports in zip(members, twins, found, strict=True):
        assert_same_bits(reports, alone(twin), one, twin)


def test_replicas_that_start_or_end_at_other_steps_keep_their_bits():
    def made():
        return [member(0), member(1, start=2), member(2, steps=2)]

    members, twins = made(), made()
    found = together(members)
    assert [len(reports) for reports in found] == [4, 2, 2]
    for one, twin, reports in zip(members, twins, found, strict=True):
        assert_same_bits(reports, alone(twin), one, twin)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("shape", [{}, {"vocab_size": 65, "d_model": 40, "mlp": "relu2"}])
def test_a_replica_that_diverges_ends_alone(bf16, shape):
    """Whatever its widths: operands are read beyond their ends, and memory is shared."""
    if bf16 and not multiplies_bf16():
        pytest.skip("this processor has no products of bfloat16")

    def spoilt():
        members = [member(seed, bf16=bf16, shape=shape) for seed in range(3)]
        with torch.no_grad():
            members[1].model.blocks[1].mlp.up.weight[3, 5] = torch.inf
        return members

    members, twins = spoilt(), spoilt()
    found = together(members)
    (error,) = found[1]
    assert isinstance(error, DivergedError)
    assert "blocks.1.mlp.up.weight is already not finite" in str(error)
    for row in (0, 2):
        assert_same_bits(found[row], alone(twins[row]), members[row], twins[row])


def test_a_bad_step_that_is_skipped_leaves_the_weights_as_they_were():
    one, twin = member(0, on_nonfinite="skip"), member(0)
    with torch.no_grad():
        for each in (one, twin):
            each.model.final_norm.weight[2] = torch.nan
    (reports,) = together([one])
    assert all(report.skipped for report in reports)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value.nan_to_num(), twin.model.state_dict()[name].nan_to_num())


def test_batches_of_two_sizes_are_refused():
    one, other = member(0), member(1)
    other = dataclasses.replace(other, batch_at=lambda step: batches_of(1)(step)[:, :-3])
    with pytest.raises(ConfigError, match=r"batches of \(4, 21\), \(4, 18\) found"):
        next(train_members([one, other]))
