"""Passes of a step that a CUDA device records, as they run without a graph.

What a device records is in tests/engine/test_cuda.py. That it can be recorded is seen on the meta
device: nothing comes from the host's memory after the first pass, and nobody asks for a number.
"""

import copy

import pytest
import torch
from architectures import CONFIGS, config_of, label, model_of, tokens_of
from torch.utils._python_dispatch import TorchDispatchMode

from assay.cuda_graph import GraphedCallable
from assay.engine.native_ensemble import EnsembleMember
from assay.engine.vmap_ensemble import VmapEnsemble, train_members
from assay.errors import ConfigError
from assay.schema import decode
from assay.train.config import TrainConfig
from assay.train.gradients import backward, passes_of
from assay.train.loop import train
from assay.train.optim import AdamWConfig
from assay.train.plan import ExecutionPlan


def plan_of(**fields):
    config = decode(TrainConfig, {"backend": "graphs", "batch_size": 4, "steps": 3} | fields)
    return ExecutionPlan(config, torch.device("cpu"), autocast=False)


def member(config, seed, *, device="cpu", **fields):
    model = model_of(config, seed=seed).to(device)
    plan = plan_of(seed=seed, **fields)
    return EnsembleMember(
        model, lambda n: tokens_of(4, seed=10 * seed + n), AdamWConfig().build(model), plan
    )


class NothingFromTheHost(TorchDispatchMode):
    """Raises where a recording would fail, or record a number of its moment."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise AssertionError(f"{func} waits for the device")
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type != "meta" and result.ndim:
            raise AssertionError(f"{func} makes a tensor of the host")
        return result


@pytest.mark.parametrize("config", CONFIGS, ids=label)
@pytest.mark.shapes_checked_by_others
def test_a_pass_takes_nothing_from_the_host(config):
    model = model_of(config).to("meta")
    passes = passes_of(model, plan_of())
    batch = tokens_of(4).to("meta")
    passes(batch, 1)
    with NothingFromTheHost():
        passes(batch, 1)
    assert all(p.grad.shape == p.shape for p in model.parameters())


@pytest.mark.parametrize("config", CONFIGS[::4], ids=label)
@pytest.mark.shapes_checked_by_others
def test_neither_does_one_of_replicas(config):
    members = [member(config, seed, device="meta") for seed in range(3)]
    group = VmapEnsemble(members)
    batches = torch.stack([tokens_of(4)] * 3).to("meta")
    group._passes(batches)
    with NothingFromTheHost():
        losses, _ = group._passes(batches)
    assert losses.shape == (3,)


def test_replicas_are_those_of_the_passes_as_they_come():
    def outcomes(backend):
        members = [member(config_of(), seed, backend=backend) for seed in range(3)]
        rounds = [[(r.loss_nats, r.grad_norm) for r in some] for some in train_members(members)]
        return rounds, [m.model.state_dict() for m in members]

    (found, weights), (expected, theirs) = outcomes("graphs"), outcomes("torch")
    assert found == expected
    for one, other in zip(weights, theirs, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda x: x + torch.tensor([1.0, 2.0]).to("meta"), "makes a tensor of the host"),
        (lambda x: x.sum().item(), "waits for the device"),
    ],
)
def test_the_watch_sees_a_copy_from_the_host_and_a_question(work, told):
    with pytest.raises(AssertionError, match=told), NothingFromTheHost():
        work(torch.ones(2, device="meta"))


def test_a_layer_computed_again_reads_no_state_of_a_generator(monkeypatch):
    """Which a recording cannot; a model that drops needs it, and is not recorded."""
    model, plan = model_of(config_of()), plan_of(recompute=True)
    plan.prepare(model)
    asked = []
    monkeypatch.setattr(torch, "get_rng_state", lambda: asked.append("state"))
    passes_of(model, plan)(tokens_of(4), 1)
    assert model.recompute
    assert asked == []


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_run_is_that_of_the_passes_as_they_come(micro_batches):
    def reports(backend):
        model = model_of(config_of())
        plan = plan_of(backend=backend, micro_batches=micro_batches)
        steps = train(model, lambda n: tokens_of(4, seed=n), AdamWConfig().build(model), plan)
        return [(r.loss_nats, r.grad_norm) for r in steps], model.state_dict()

    (found, weights), (expected, theirs) = reports("graphs"), reports("torch")
    assert found == expected
    assert all(torch.equal(weights[name], theirs[name]) for name in theirs)


def test_another_shape_is_recorded_anew():
    """And an input is copied to where the first was: it may change behind the recording's back."""
    work = GraphedCallable(lambda given: given * 2)
    first = torch.ones(3)
    assert work(first).tolist() == [2, 2, 2]
    first.zero_()
    assert work(torch.full((3,), 4.0)).tolist() == [8, 8, 8]
    assert work(torch.ones(2, 1)).tolist() == [[2], [2]]
    assert first.tolist() == [0, 0, 0]


def test_what_is_computed_again_after_a_trouble_is_not_recorded():
    model, plan = model_of(config_of()), plan_of()
    twin = copy.deepcopy(model)
    loss, again = passes_of(model, plan)(tokens_of(4), 1), backward(twin, tokens_of(4), plan, 1)
    assert loss == again
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_sums_in_a_tree_are_not_recorded():
    with pytest.raises(ConfigError, match=r"exact_rows: 2 found, whose sums are not recorded"):
        decode(TrainConfig, {"backend": "graphs", "batch_size": 4, "exact_rows": 2})
