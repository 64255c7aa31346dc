"""Replicas against the same models trained alone."""

import itertools
import math
from typing import Literal

import pytest
import torch
from allpairspy import AllPairs
from torch import nn

from assay.engine.vmap_ensemble import EnsembleMember, train_members
from assay.errors import ConfigError, DivergedError
from assay.nn.model import GPT, ModelConfig
from assay.nn.norm import NORMS, NormVariant
from assay.schema import decode
from assay.train.config import TrainConfig
from assay.train.loop import StepReport, train
from assay.train.optim import AdamWConfig, MuonConfig
from assay.train.plan import ExecutionPlan

VOCAB, LENGTH, STEPS = 11, 8, 6
EXACT = 1e-10  # float64: roundings of 1e-16, grown by Muon's 5e2 a step over at most twenty

CHOICES = {
    "norm": ["none", "layer", "sigma", {"kind": "rms", "affine": "none"}, "rms", "dyt"],
    "position": ["none", "learned", "sinusoidal", "rope", "alibi", "t5"],
    "block": ["pre", "post", "parallel", "plain", "peri"],
    "mlp": ["gelu", "relu", "relu2", "swiglu", "geglu"],
    "tie_embeddings": [True, False],
    "mixer": [
        "attention",
        {"kind": "attention", "qk_norm": True, "n_kv_heads": 2},
        {"kind": "attention", "window": 3, "qk_norm": False},
        {"kind": "attention", "window": 2, "n_kv_heads": 1, "qk_norm": True},
    ],
    "bias": [False, True],
    "soft_cap": [None, 2.0],
    "logit_scale": ["none", "inv_sqrt_d"],
    "optimizer": ["adamw", "muon"],
    "micro_batches": [1, 2],
}
ROWS = [dict(zip(CHOICES, row, strict=True)) for row in AllPairs(list(CHOICES.values()))]
DROPPING = [
    {"dropout": 0.3},
    {"mixer": {"kind": "attention", "dropout": 0.4, "qk_norm": False}},
    {"mixer": {"kind": "attention", "dropout": 0.4, "window": 3, "n_kv_heads": 2}, "dropout": 0.1},
    {"mixer": {"kind": "attention", "dropout": 0.2}, "position": "alibi"},
]


def batches_of(seed, rows=4):
    def batch_at(step):
        generator = torch.Generator().manual_seed(1000 * seed + step)
        return torch.randint(VOCAB, (rows, LENGTH + 1), generator=generator)

    return batch_at


def member(seed=0, *, dtype=torch.float64, optimizer=None, start=0, kernel="fused", **fields):
    """A replica whose seed, rate, decay, schedule and clipping depend on `seed`."""
    train_fields = {
        "seed": seed,
        "steps": STEPS,
        "batch_size": 4,
        "schedule": ["cosine", "linear", "wsd"][seed % 3],
        "clip_norm": [1.0, None, 0.3][seed % 3],
        "micro_batches": fields.pop("micro_batches", 1),
    }
    train_fields |= fields.pop("train", {})
    shape = {"vocab_size": VOCAB, "max_seq_len": LENGTH, "d_model": 16, "n_layers": 2}
    model = GPT.create(decode(ModelConfig, shape | fields), seed=seed).to(dtype)
    cls = MuonConfig if optimizer == "muon" else AdamWConfig
    config = cls(lr=0.002 * (seed + 1), weight_decay=0.1 * seed)
    plan = ExecutionPlan(decode(TrainConfig, train_fields), torch.device("cpu"), False, kernel)
    plan.prepare(model)
    return EnsembleMember(model, batches_of(seed), config.build(model), plan, start)


def alone(one):
    return list(train(one.model, one.batch_at, one.optimizers, one.plan, start=one.start))


def together(members):
    """The outcomes of each member, None left out."""
    rounds = list(train_members(members))
    return [[r for r in column if r is not None] for column in zip(*rounds, strict=True)]


def assert_same(found, expected, one, other, *, bound):
    """Reports, weights and optimizer state."""
    assert [r.step for r in found] == [r.step for r in expected]
    for report, twin in zip(found, expected, strict=True):
        assert report.lr == twin.lr
        assert report.tokens == twin.tokens
        assert report.loss_nats == pytest.approx(twin.loss_nats, rel=0, abs=bound)
        assert report.grad_norm == pytest.approx(twin.grad_norm, rel=bound, abs=bound)
    assert_same_weights(one, other, bound=bound)


def assert_same_weights(one, other, *, bound):
    for pairs in (
        (one.model.state_dict(), other.model.state_dict()),
        (one.optimizers.state(), other.optimizers.state()),
    ):
        for name, value in pairs[0].items():
            torch.testing.assert_close(value, pairs[1][name], rtol=bound, atol=bound, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("fields", ROWS, ids=lambda row: "-".join(map(str, row.values())))
def test_replicas_are_the_models_trained_alone(fields):
    """Twenty steps in float64, each with its own seed, rate, decay, schedule and clipping."""
    fields = fields | {"train": {"steps": 20}}
    members, twins = ([member(seed, **fields) for seed in range(3)] for _ in range(2))
    found = together(members)
    for one, twin, reports in zip(members, twins, found, strict=True):
        assert_same(reports, alone(twin), one, twin, bound=EXACT)


@pytest.mark.parametrize("kernel", ["fused", pytest.param("blocks", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fields", DROPPING)
def test_each_replica_drops_what_it_would_drop_alone(fields, kernel):
    fields = fields | {"micro_batches": 2, "kernel": kernel}
    members, twins = ([member(seed, **fields) for seed in range(3)] for _ in range(2))
    before = torch.get_rng_state()
    found = together(members)
    assert torch.equal(torch.get_rng_state(), before)
    for one, twin, reports in zip(members, twins, found, strict=True):
        assert_same(reports, alone(twin), one, twin, bound=EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_in_float32_replicas_stay_near_the_models_trained_alone(optimizer):
    """Losses of order 1 differ by roundings, 6e-8, that twenty steps of learning may stretch.

    1e-4 of a nat is a hundredth of what a replica learns in the steps here.
    """
    members, twins = (
        [
            member(seed, dtype=torch.float32, optimizer=optimizer, train={"steps": 20})
            for seed in range(3)
        ]
        for _ in range(2)
    )
    for reports, twin in zip(together(members), twins, strict=True):
        losses = [report.loss_nats for report in alone(twin)]
        assert [r.loss_nats for r in reports] == pytest.approx(losses, rel=0, abs=1e-4)
        assert max(losses) - min(losses) > 0.01


def test_products_in_bfloat16_are_those_of_the_model_alone():
    """A step of bfloat16 is 2^-8; the loss has gone through some ten of them, of order one."""
    members, twins = ([member(seed, dtype=torch.float32) for seed in range(2)] for _ in range(2))
    for each in (members, twins):
        for index, one in enumerate(each):
            plan = ExecutionPlan(one.plan.config, one.plan.device, True)
            each[index] = EnsembleMember(one.model, one.batch_at, one.optimizers, plan)
    for reports, twin in zip(together(members), twins, strict=True):
        twin_loss = next(train(twin.model, twin.batch_at, twin.optimizers, twin.plan)).loss_nats
        assert 0 <= abs(reports[0].loss_nats - twin_loss) < 10 * 2**-8


def spoil(one, step):
    """Make the gradient of a replica infinite from a step on, by tokens that its table lacks."""
    with torch.no_grad():
        one.model.embed.weight[0] = 1e300

    def batch_at(number):
        batch = batches_of(7)(number)
        return batch.clamp_min(1) if number < step else torch.zeros_like(batch)

    return EnsembleMember(one.model, batch_at, one.optimizers, one.plan, one.start)


def test_a_diverged_replica_ends_alone_with_its_reason_and_its_last_good_weights():
    bad, twin = (spoil(member(1, norm="none", tie_embeddings=False), 4) for _ in range(2))
    reports = train(twin.model, twin.batch_at, twin.optimizers, twin.plan)
    with pytest.raises(DivergedError) as error:
        list(reports)
    members = [member(0, norm="none", tie_embeddings=False), bad]
    found = together(members)
    assert [type(outcome) for outcome in found[1]] == [StepReport] * 3 + [DivergedError]
    assert str(found[1][-1]) == str(error.value)
    assert_same_weights(bad, twin, bound=EXACT)
    assert all(parameter.grad is None for parameter in bad.model.parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_replica_that_diverges_leaves_the_others_as_they_would_be_without_it(optimizer):
    fields = {"norm": "none", "tie_embeddings": False, "optimizer": optimizer}
    members = [member(0, **fields), spoil(member(1, **fields), 4), member(2, **fields)]
    others = [member(0, **fields), member(1, **fields), member(2, **fields)]
    found, expected = together(members), together(others)
    for index in (0, 2):
        assert_same(found[index], expected[index], members[index], others[index], bound=EXACT)


def test_a_replica_that_is_done_leaves_the_others_at_work():
    members, twins = (
        [member(seed, train={"steps": steps}) for seed, steps in enumerate([3, 9, 5])]
        for _ in range(2)
    )
    rounds = list(train_members(members))
    assert [[outcome is not None for outcome in r] for r in rounds] == [
        [step <= steps for steps in (3, 9, 5)] for step in range(1, 10)
    ]
    for index, (one, twin) in enumerate(zip(members, twins, strict=True)):
        reports = [r[index] for r in rounds if r[index] is not None]
        assert_same(reports, alone(twin), one, twin, bound=EXACT)


def test_replicas_that_stand_at_different_steps_go_on_each_from_its_own():
    members, twins = (
        [member(seed, start=start) for seed, start in enumerate([3, 0, 5])] for _ in range(2)
    )
    for one, twin, reports in zip(members, twins, together(members), strict=True):
        assert_same(reports, alone(twin), one, twin, bound=EXACT)


def test_between_two_steps_a_replica_is_a_model_like_any_other():
    """Evaluated, left in evaluation mode, saved, all without a trace."""
    members, twins = ([member(seed, dropout=0.2) for seed in range(2)] for _ in range(2))
    tokens = batches_of(5)(1)[:, :-1]
    twin_steps = [train(t.model, t.batch_at, t.optimizers, t.plan) for t in twins]
    for _ in train_members(members):
        for one, twin, steps in zip(members, twins, twin_steps, strict=True):
            next(steps)
            logits = [each.model.eval()(tokens) for each in (one, twin)]
            torch.testing.assert_close(*logits, rtol=EXACT, atol=EXACT)
            assert one.model.state_dict().keys() == twin.model.state_dict().keys()


def test_afterwards_each_model_has_memory_of_its_own():
    members = [member(seed, train={"steps": 2}) for seed in range(3)]
    together(members)
    for one in members:
        for parameter in one.model.parameters():
            assert parameter.untyped_storage().nbytes() == parameter.nbytes


def test_training_again_gives_the_same_bits():
    runs = []
    for _ in range(2):
        members = [member(seed, dtype=torch.float32, optimizer="muon") for seed in range(3)]
        found = [[(r.loss_nats, r.grad_norm) for r in reports] for reports in together(members)]
        runs.append((found, [one.model.state_dict() for one in members]))
    assert runs[0][0] == runs[1][0]
    for one, other in zip(runs[0][1], runs[1][1], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_single_replica_is_a_group_too():
    one, twin = member(2), member(2)
    assert_same(together([one])[0], alone(twin), one, twin, bound=EXACT)


def test_nothing_is_yielded_where_nothing_is_left_to_do():
    assert list(train_members([])) == []
    assert list(train_members([member(0, start=STEPS)])) == []


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ({"n_layers": 3}, "model.n_layers"),
        ({"norm": "layer"}, "model.norm"),
        ({"micro_batches": 2}, "train.micro_batches"),
        ({"train": {"batch_size": 8}}, "train.batch_size"),
    ],
)
def test_what_must_be_common_is_named(other, place):
    with pytest.raises(ConfigError, match=rf"replica 1: {place} = .* found; expected .* replica 0"):
        next(train_members([member(0), member(1, **other)]))


def test_batches_of_two_sizes_are_refused():
    one, other = member(0), member(1)
    short = EnsembleMember(
        other.model, lambda step: batches_of(1)(step)[:, :-1], other.optimizers, other.plan
    )
    with pytest.raises(ConfigError, match=r"\(4, 9\), \(4, 8\) found; expected one size"):
        next(train_members([one, short]))


def test_initial_weights_may_come_from_different_rules():
    members = [member(0, init="xavier"), member(1, init="gpt2")]
    losses = [[r.loss_nats for r in reports] for reports in together(members)]
    assert all(map(math.isfinite, itertools.chain(*losses)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_compiled_replicas_are_the_models_trained_alone():
    members, twins = ([member(seed, dtype=torch.float64) for seed in range(2)] for _ in range(2))
    for index, one in enumerate(members):
        plan = ExecutionPlan(one.plan.config, one.plan.device, False, compiled=True)
        members[index] = EnsembleMember(one.model, one.batch_at, one.optimizers, plan)
    for one, twin, reports in zip(members, twins, together(members), strict=True):
        assert_same(reports, alone(twin), one, twin, bound=EXACT)


class Weighing(nn.Module):
    """A stranger's norm with a buffer: a constant, or part of what a checkpoint holds."""

    def __init__(self, d_model, persistent):
        super().__init__()
        weights = torch.linspace(0.5, 1.5, d_model, dtype=torch.float64)
        self.register_buffer("weights", weights, persistent=persistent)

    def forward(self, x):
        return x * self.weights


class WeighingConfig(NormVariant):
    kind: Literal["weighing"] = "weighing"
    persistent: bool = False

    def build(self, d_model):
        return Weighing(d_model, self.persistent)


@pytest.fixture
def _forgotten():
    yield
    NORMS.remove(WeighingConfig)


@pytest.mark.usefixtures("_forgotten")
def test_constants_of_a_variant_from_outside_are_there_in_a_stack():
    fields = {"norm": WeighingConfig(), "position": "none"}
    singles = [alone(member(seed, **fields)) for seed in (0, 1)]
    members = [member(seed, **fields) for seed in (0, 1)]
    for row in train_members(members):
        for seed, report in enumerate(row):
            expected = singles[seed][report.step - 1]
            assert report.loss_nats == pytest.approx(expected.loss_nats, abs=EXACT)


@pytest.mark.usefixtures("_forgotten")
def test_what_differs_between_models_beside_parameters_is_refused_in_a_stack():
    members = [member(seed, norm=WeighingConfig(persistent=True)) for seed in (0, 1)]
    with pytest.raises(ConfigError, match=r"mixer_norm\.weights is a buffer that its checkpoints"):
        next(train_members(members))


def test_matrices_that_are_equal_for_a_time_are_refused_in_a_stack():
    members = [member(seed, tie_embeddings=0.5) for seed in (0, 1)]
    with pytest.raises(ConfigError, match=r"tie_embeddings = 0\.5 found; expected true or false"):
        next(train_members(members))
