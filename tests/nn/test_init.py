import math

import pytest
import torch
from torch import nn

from assay.nn.model import GPT, ModelConfig
from assay.schema import decode

D, V, LAYERS = 64, 500, 3
INTO_RESIDUAL = ("out_proj.weight", "down.weight")


def weights(init, **fields):
    shape = {"vocab_size": V, "d_model": D, "n_layers": LAYERS, "max_seq_len": 100}
    config = decode(ModelConfig, {**shape, "position": "learned", "init": init, **fields})
    return {name: p.detach() for name, p in GPT.create(config, seed=3).named_parameters()}


def matrices(init, **fields):
    return {name: w for name, w in weights(init, **fields).items() if w.dim() == 2}


def assert_normal(w, std):
    n = w.numel()
    assert abs(w.std().item() / std - 1) < 5 / math.sqrt(2 * n)  # five standard errors
    assert abs(w.mean().item()) < 5 * std / math.sqrt(n)
    within = (w.abs() < std).double().mean().item()
    assert abs(within - math.erf(1 / math.sqrt(2))) < 5 * 0.5 / math.sqrt(n)


def assert_uniform(w, bound):
    n = w.numel()
    assert bound * (1 - 20 / n) < w.abs().max() <= bound  # short of it by b/n on average
    assert abs(w.mean().item()) < 5 * bound / math.sqrt(3 * n)
    assert abs((w.abs() < bound / 2).double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize("std", [0.02, 0.3])
def test_gaussian_is_one_width_for_all(std):
    for w in matrices({"kind": "gaussian", "std": std}).values():
        assert_normal(w, std)


def test_gpt2_damps_what_writes_to_the_residual_stream_by_the_root_of_its_number():
    for name, w in matrices("gpt2").items():
        assert_normal(w, 0.02 / math.sqrt(2 * LAYERS) if name.endswith(INTO_RESIDUAL) else 0.02)


def test_xavier_is_bounded_by_rows_and_columns():
    for w in matrices("xavier", tie_embeddings=False).values():
        assert_uniform(w, math.sqrt(6 / (w.shape[0] + w.shape[1])))


@pytest.mark.parametrize("init", ["gaussian", "gpt2", "xavier"])
def test_biases_start_at_zero_and_norms_as_the_identity(init):
    for name, w in weights(init, bias=True, norm="layer").items():
        if w.dim() == 1:
            expected = torch.ones_like(w) if name.endswith("norm.weight") else torch.zeros_like(w)
            assert torch.equal(w, expected), name


def both_largest(ours, theirs):
    return pytest.approx(theirs.detach().abs().max().item(), rel=40 / ours.numel())


def test_torch_is_what_the_constructors_of_pytorch_draw():
    ours = weights("torch", bias=True, norm="layer", mlp="gelu", tie_embeddings=False)
    for name in ("embed.weight", "position.table.weight"):
        assert_normal(ours[name], 1.0)
        assert_normal(nn.Embedding(*ours[name].shape).weight.detach(), 1.0)
    attention = nn.MultiheadAttention(D, 4)
    linear = {"mlp.up": nn.Linear(D, 4 * D), "mlp.down": nn.Linear(4 * D, D)}
    for i in range(LAYERS):
        for part in ("q_proj", "k_proj", "v_proj"):
            w = ours[f"blocks.{i}.mixer.{part}.weight"]
            assert w.abs().max().item() == both_largest(w, attention.in_proj_weight)
            assert_uniform(w, math.sqrt(6 / (4 * D)))
            assert not ours[f"blocks.{i}.mixer.{part}.bias"].any()
        w = ours[f"blocks.{i}.mixer.out_proj.weight"]
        assert w.abs().max().item() == both_largest(w, attention.out_proj.weight)
        assert not ours[f"blocks.{i}.mixer.out_proj.bias"].any()
        for part, layer in linear.items():
            for leaf in ("weight", "bias"):
                w = ours[f"blocks.{i}.{part}.{leaf}"]
                assert w.abs().max().item() == both_largest(w, layer.get_parameter(leaf))
                assert_uniform(w, 1 / math.sqrt(layer.in_features))
    w = ours["unembed.weight"]
    assert w.abs().max().item() == both_largest(w, nn.Linear(D, V).weight)


def test_no_two_parameters_hold_the_same_draws():
    drawn = list(matrices("gpt2", tie_embeddings=False).values())
    firsts = [(w.flatten()[:4] / w.std()).tolist() for w in drawn]
    assert len({tuple(round(x, 3) for x in first) for first in firsts}) == len(drawn)
