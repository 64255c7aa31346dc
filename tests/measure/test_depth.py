import math

import pytest
import torch

from assay.measure.depth import through_depth
from assay.nn.loss import next_token_loss
from assay.nn.model import GPT, ModelConfig
from assay.schema import override

VOCAB, WIDTH, LAYERS = 50, 16, 3
SMALL = override(
    ModelConfig(),
    {"vocab_size": VOCAB, "max_seq_len": 16, "d_model": WIDTH, "n_layers": LAYERS},
)


def tokens(seed=1):
    return torch.randint(VOCAB, (4, 13), generator=torch.Generator().manual_seed(seed))


def model(**changes):
    return GPT.create(override(SMALL, changes), seed=2)


def by_hand(gpt, batch):
    """The stream, taken along the layers one at a time without hooks."""
    entering = []

    def keep(block):
        forward = block.forward

        def kept(x, *rest):
            entering.append(x.detach())
            y = forward(x, *rest)
            if block is gpt.blocks[-1]:
                entering.append(y.detach())
            return y

        return kept

    for block in gpt.blocks:
        block.forward = keep(block)
    loss = next_token_loss(gpt.eval(), batch)
    loss.backward()
    norms = [
        math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in block.parameters()))
        for block in gpt.blocks
    ]
    return float(loss.detach()), [x.double().pow(2).mean().sqrt().item() for x in entering], norms


@pytest.mark.parametrize("block", ["pre", "post", "parallel", "plain"])
def test_scales_and_gradients_are_those_of_a_plain_backward_pass(block):
    """Sums of some thousand float32 terms: a relative error under 1e-5."""
    found = through_depth(model(block=block), tokens())
    loss, scales, norms = by_hand(model(block=block), tokens())
    assert found.loss_nats == pytest.approx(loss, rel=1e-6)
    assert found.stream_rms == pytest.approx(scales, rel=1e-5)
    assert found.gradient_norms == pytest.approx(norms, rel=1e-5)


def test_there_is_a_scale_before_each_block_and_one_after_the_last():
    found = through_depth(model(), tokens())
    assert (len(found.stream_rms), len(found.gradient_norms)) == (LAYERS + 1, LAYERS)


def test_a_stream_normalised_after_every_sum_has_scale_one():
    """Post-norm: mean square x² / (x² + ε) of each token, with ε 1e-6 under x² near 1."""
    found = through_depth(model(block="post", init="torch"), tokens())
    assert found.stream_rms[1:] == pytest.approx([1.0] * LAYERS, abs=1e-4)


def test_the_first_scale_is_that_of_the_embedding():
    gpt = model()
    expected = gpt.embed(tokens()[:, :-1]).double().square().mean().sqrt().item()
    assert through_depth(gpt, tokens()).stream_rms[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    gpt = model(dropout=0.5).train(training)
    first = through_depth(gpt, tokens())
    assert through_depth(gpt, tokens()) == first
    assert gpt.training is training
    assert all(parameter.grad is None for parameter in gpt.parameters())
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in gpt.blocks)


def test_a_gradient_that_is_no_number_is_shown():
    gpt = model(norm="sigma")
    with torch.no_grad():
        gpt.embed.weight.fill_(0.5)  # every token has all channels equal: σ = 0
    found = through_depth(gpt, tokens())
    assert all(math.isnan(norm) for norm in found.gradient_norms)
    assert math.isfinite(found.loss_nats)
