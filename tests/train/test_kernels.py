"""Loss and gradients of the C++ kernels.

The oracle is autograd in float64 through the model of `nn/model.py`, which other tests hold to the
slow twin. An error is told against the norm of the parameter's own gradient and a hundredth of that
of all: a bias of keys, say, has a gradient of zero, of which nothing but rounding is left.
"""

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from architectures import CONFIGS, config_of, label, model_of, tokens_of

from assay.errors import ConfigError
from assay.native.build import kernels
from assay.nn.loss import next_token_loss
from assay.schema import decode
from assay.train import native_backend as training
from assay.train.config import TrainConfig
from assay.train.model_view import TrainModelView
from assay.train.native_backend import (
    NativeWorkspace,
    gradients,
    multiplies_bf16,
    token_losses,
    unsupported_reason,
)

PRECISIONS = [False, True]
_FP32 = 2e-5
"""Bound of an error in float32: some hundred roundings of 6e-8 that add up along two layers."""


@pytest.fixture(autouse=True)
def _able(native, request):
    asked = getattr(request.node, "callspec", None)
    if asked and asked.params.get("bf16") and not multiplies_bf16():
        pytest.skip("this processor has no products of bfloat16")


def found(model, tokens, *, bf16=False, pieces=1):
    """Loss, and a copy of the gradients by name."""
    model.zero_grad()
    loss = gradients(model, tokens, bf16=bf16, seed=0, pieces=pieces, apart=False)
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters()}


def exact(model, tokens):
    twin = copy.deepcopy(model).double()
    twin.zero_grad()
    loss = next_token_loss(twin, tokens)
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in twin.named_parameters()}


def worst_error(ours, theirs):
    whole = torch.stack([g.norm() for g in theirs.values()]).norm()
    errors = {
        name: float((ours[name].double() - g).norm() / (g.norm() + 0.01 * whole))
        for name, g in theirs.items()
    }
    return max(errors.items(), key=lambda item: item[1])


def autocast_error(model, tokens, theirs):
    """What PyTorch's own passes err by with products in bfloat16."""
    twin = copy.deepcopy(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = next_token_loss(twin, tokens)
    loss.backward()
    return worst_error({n: p.grad for n, p in twin.named_parameters()}, theirs)[1]


def check(model, tokens, *, bf16):
    """In bfloat16 the kernels may err by no more than half as much again as PyTorch does."""
    loss, ours = found(model, tokens, bf16=bf16)
    expected, theirs = exact(model, tokens)
    bound = 1.5 * autocast_error(model, tokens, theirs) + 0.01 if bf16 else _FP32
    assert loss == pytest.approx(expected, rel=0.1 * bound)
    name, error = worst_error(ours, theirs)
    assert error < bound, (name, error, bound)


@pytest.mark.parametrize("bf16", PRECISIONS)
@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_every_architecture_has_the_gradients_of_autograd(config, bf16):
    model, tokens = model_of(config), tokens_of()
    check(model, tokens, bf16=bf16)


@pytest.mark.parametrize("bf16", PRECISIONS)
@pytest.mark.parametrize(("rows", "seq_len"), [(1, 1), (1, 3), (2, 33), (5, 64), (17, 65)])
def test_every_size_of_batch_is_cut_into_whole_blocks(rows, seq_len, bf16):
    model, tokens = model_of(config_of(bias=True)), tokens_of(rows, seq_len)
    check(model, tokens, bf16=bf16)


@pytest.mark.parametrize("bf16", PRECISIONS)
def test_a_vocabulary_too_large_for_all_logits_at_once_is_learnt_in_chunks(bf16):
    """70,000 words and 512 tokens are 36 million logits, of which half exist at once."""
    config = config_of(
        vocab_size=70_000, d_model=16, n_layers=1, mixer={"kind": "attention", "n_heads": 2}
    )
    model = model_of(config)
    tokens = torch.randint(70_000, (8, 65), generator=torch.Generator().manual_seed(0))
    check(model, tokens, bf16=bf16)


@pytest.mark.parametrize("bf16", PRECISIONS)
def test_bits_do_not_depend_on_the_number_of_threads(bf16):
    model, tokens = model_of(config_of(bias=True, norm="layer")), tokens_of(5, 90)
    one_loss, one = found(model, tokens, bf16=bf16)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        loss, other = found(model, tokens, bf16=bf16)
        assert loss == one_loss
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("bf16", PRECISIONS)
def test_bits_do_not_depend_on_what_is_trained_beside(bf16):
    """Five models on two threads, whose passes see one model after another."""
    config, shape = config_of(), (3, 71)
    models = [model_of(config, seed=seed) for seed in range(5)]
    batches = [tokens_of(seed=seed) for seed in range(5)]
    alone = [found(model, batch, bf16=bf16) for model, batch in zip(models, batches, strict=True)]
    torch.set_num_threads(2)
    described = [TrainModelView(model, shape) for model in models]
    for model in models:
        model.zero_grad()
    each = zip(described, models, batches, strict=True)
    jobs = [d.job(model, batch, seed=0, pieces=1) for d, model, batch in each]
    losses = NativeWorkspace(bf16=bf16).apart(jobs)
    for loss, model, (expected, theirs) in zip(losses, models, alone, strict=True):
        assert torch.tensor(loss).item() == expected
        assert all(torch.equal(p.grad, theirs[name]) for name, p in model.named_parameters())


ODD = {"vocab_size": 65, "d_model": 42, "mlp": {"kind": "swiglu", "d_ff": 37}}
"""Widths that are multiples of no tile's and no vector's: each operand is read beyond its end."""


@pytest.mark.parametrize("bf16", PRECISIONS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        ODD | {"mixer": {"kind": "attention", "n_heads": 3}},
        ODD
        | {
            "mixer": {"kind": "attention", "n_heads": 6, "n_kv_heads": 3, "qk_norm": True},
            "position": "none",
        },
        ODD | {"d_model": 45, "mixer": {"kind": "attention", "n_heads": 3}, "position": "alibi"},
        ODD | {"mixer": {"kind": "attention", "n_heads": 3}, "block": "parallel", "norm": "layer"},
        ODD | {"mixer": "none", "position": "learned", "block": "post", "bias": True},
    ],
)
@pytest.mark.parametrize(
    "spoilt", ["embed.weight", "blocks.1.mlp.up.weight", "blocks.0.mlp.down.weight"]
)
def test_a_model_that_is_no_number_leaves_the_one_after_it_alone(bf16, fields, spoilt):
    models = [model_of(config_of(**fields), seed=seed) for seed in (0, 1)]
    batch, passes = tokens_of(), NativeWorkspace(bf16=bf16)
    expected, theirs = found(models[1], batch, bf16=bf16)
    with torch.no_grad():
        models[0].get_parameter(spoilt).fill_(torch.nan)
    models[1].zero_grad()
    described = [TrainModelView(model, tuple(batch.shape)) for model in models]
    each = zip(described, models, strict=True)
    bad, good = passes.apart([d.job(m, batch, seed=0, pieces=1) for d, m in each])
    assert bad != bad
    assert torch.tensor(good).item() == expected
    assert all(torch.equal(p.grad, theirs[name]) for name, p in models[1].named_parameters())


@pytest.mark.parametrize("bf16", PRECISIONS)
def test_a_sequence_that_is_no_number_leaves_the_others_of_its_batch_alone(bf16):
    """Of heads and rows that end within a tile or a vector the next ones are read too."""
    attention = {"kind": "attention", "n_heads": 3}
    fields = {"d_model": 45, "mixer": attention, "position": "alibi", "tie_embeddings": False}
    config = config_of(**ODD | fields)
    model, tokens = model_of(config), tokens_of(4, 40) % 37
    expected = token_losses(model, tokens, bf16=bf16, rows=4)
    with torch.no_grad():
        model.embed.weight[64] = torch.nan
    tokens[1, 7] = 64
    losses = token_losses(model, tokens, bf16=bf16, rows=4)
    alone = [0, 2, 3]
    assert torch.equal(losses[alone], expected[alone])
    assert losses[1, 7:].isnan().all()


def test_pieces_of_a_batch_add_up():
    model, tokens = model_of(config_of(tie_embeddings=False, position="learned")), tokens_of(4)
    _, whole = found(model, tokens)
    model.zero_grad()
    for piece in tokens.chunk(2):
        gradients(model, piece, bf16=False, seed=0, pieces=2, apart=False)
    parts = {name: parameter.grad.double() for name, parameter in model.named_parameters()}
    assert worst_error(whole, parts)[1] < _FP32


def test_gradients_apart_are_not_written_to_again():
    model = model_of(config_of())
    gradients(model, tokens_of(), bf16=False, seed=0, pieces=1, apart=True)
    first = model.embed.weight.grad
    kept = first.clone()
    model.zero_grad()
    gradients(model, tokens_of(seed=4), bf16=False, seed=0, pieces=1, apart=True)
    assert torch.equal(first, kept)
    assert not torch.equal(model.embed.weight.grad, kept)


@pytest.mark.parametrize("bf16", PRECISIONS)
def test_what_every_token_costs_is_told_without_gradients(bf16):
    """Seven windows in batches of three: the last batch is filled up, and cut again."""
    model, windows = model_of(config_of(soft_cap=3.0)), tokens_of(7, 40)
    with torch.inference_mode():
        losses = token_losses(model, windows, bf16=bf16, rows=3)
    twin = copy.deepcopy(model).double()
    logits = twin(windows[:, :-1]).flatten(0, 1)
    expected = F.cross_entropy(logits, windows[:, 1:].flatten(), reduction="none").view(7, 40)
    torch.testing.assert_close(
        losses.double(), expected.detach(), rtol=0, atol=0.2 if bf16 else 1e-5
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    before = found(model, windows[:3], bf16=bf16)[1]
    assert all(torch.isfinite(gradient).all() for gradient in before.values())
    model.embed.weight.grad.mul_(2)  # an ordinary tensor, though its place was found in inference


@pytest.mark.parametrize("odd", [-1, 37])
def test_a_token_outside_the_vocabulary_is_refused(odd):
    tokens = tokens_of()
    tokens[1, -1] = odd
    with pytest.raises(IndexError, match="expected ids from 0 to 36"):
        found(model_of(config_of()), tokens)


def test_weights_that_moved_are_found():
    model, tokens = model_of(config_of()), tokens_of()
    found(model, tokens)
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.5
    assert worst_error(found(model, tokens)[1], exact(model, tokens)[1])[1] < _FP32


def test_a_weight_in_place_of_another_is_found():
    model, tokens = model_of(config_of()), tokens_of()
    found(model, tokens)
    model.embed.weight = torch.nn.Parameter(model.embed.weight.detach() * 1.5)
    assert worst_error(found(model, tokens)[1], exact(model, tokens)[1])[1] < _FP32


def test_rows_of_a_table_that_no_token_reaches_have_no_gradient():
    model = model_of(config_of(position="learned"))
    found(model, tokens_of(2, 10))
    assert not model.position.table.weight.grad[10:].any()
    assert model.position.table.weight.grad[9].any()


def test_the_memory_of_a_pass_goes_with_its_model(monkeypatch):
    freed = []
    library = kernels().library
    monkeypatch.setattr(library, "assay_pass_free", freed.append, raising=False)
    model = model_of(config_of())
    found(model, tokens_of())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert len(freed) == 1
    monkeypatch.undo()
    library.assay_pass_free(freed[0])


def test_what_only_pytorch_can_train_is_named():
    config = decode(TrainConfig, {"recompute": True})
    assert unsupported_reason(config_of(), config, torch.device("cpu")) == "train.recompute=true"


def test_products_of_bfloat16_are_not_promised_where_there_are_none(monkeypatch):
    monkeypatch.setattr(training, "multiplies_bf16", lambda: False)
    config = decode(TrainConfig, {"precision": "bf16"})
    assert "without products of bfloat16" in unsupported_reason(
        config_of(), config, torch.device("cpu")
    )


@pytest.mark.parametrize("field", ["attention=fused", "compile=on", "recompute=true"])
def test_a_setting_of_pytorch_is_refused_beside_the_kernels(field):
    name, _, value = field.partition("=")
    fields = {"backend": "native", name: True if value == "true" else value}
    with pytest.raises(ConfigError, match=f"{name}: .* found, which is how PyTorch takes a step"):
        decode(TrainConfig, fields)


def test_a_vocabulary_of_few_words_is_no_special_case():
    model = model_of(config_of(vocab_size=2))
    tokens = tokens_of() % 2
    assert worst_error(found(model, tokens)[1], exact(model, tokens)[1])[1] < _FP32
