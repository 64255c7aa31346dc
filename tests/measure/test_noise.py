import math

import pytest
import torch
import torch.nn.functional as F

from assay.measure.noise import PARTS, batch_loss_nats, with_noise
from assay.nn.model import GPT, ModelConfig
from assay.schema import override

VOCAB = 60
SMALL = override(
    ModelConfig(), {"vocab_size": VOCAB, "max_seq_len": 16, "d_model": 32, "n_layers": 3}
)


def model(**changes):
    return GPT.create(override(SMALL, changes), seed=4)


def tokens(rows=4):
    return torch.randint(VOCAB, (rows, 13), generator=torch.Generator().manual_seed(1))


def changed(before, after):
    """The names of parameters that differ."""
    new = dict(after.named_parameters())
    return {name for name, old in before.named_parameters() if not torch.equal(old, new[name])}


@pytest.mark.parametrize("part", PARTS)
def test_only_the_named_matrix_of_the_named_layer_is_replaced(part):
    original = model()
    noisy = with_noise(original, [part], [1], seed=0)
    assert changed(original, noisy) == {f"blocks.1.mixer.{part}_proj.weight"}
    assert changed(original, model()) == set()


def test_all_of_them_is_nine_matrices():
    original = model()
    noisy = with_noise(original, PARTS, range(3), seed=0)
    assert changed(original, noisy) == {
        f"blocks.{layer}.mixer.{part}_proj.weight" for layer in range(3) for part in PARTS
    }


def test_mean_and_deviation_are_those_of_the_matrix():
    """The sample moments of n = 1,024 normal numbers; five deviations are allowed."""
    original = model()
    with torch.no_grad():
        weight = original.blocks[0].mixer.k_proj.weight
        weight.copy_(0.3 * torch.rand(32, 32, generator=torch.Generator().manual_seed(9)) + 0.5)
    noisy = with_noise(original, ["k"], [0], seed=0)
    noise = noisy.blocks[0].mixer.k_proj.weight.detach()
    weight = weight.detach()
    n, std = weight.numel(), float(weight.std())
    assert float(noise.mean()) == pytest.approx(float(weight.mean()), abs=5 * std / math.sqrt(n))
    assert float(noise.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * n))
    kurtosis = float(((noise - noise.mean()) / noise.std()).pow(4).mean()) - 3
    assert abs(kurtosis) < 5 * math.sqrt(24 / n)  # normal; a uniform has -1.2
    assert abs(torch.corrcoef(torch.stack([weight.flatten(), noise.flatten()]))[0, 1]) < 5 / 32


def test_the_noise_of_a_matrix_does_not_depend_on_what_else_is_replaced():
    alone = with_noise(model(), ["v"], [2], seed=7)
    together = with_noise(model(), PARTS, range(3), seed=7)
    name = "blocks.2.mixer.v_proj.weight"
    assert torch.equal(alone.get_parameter(name), together.get_parameter(name))
    other = with_noise(model(), ["v"], [2], seed=8)
    assert not torch.equal(alone.get_parameter(name), other.get_parameter(name))


def test_no_two_matrices_get_the_same_noise():
    noisy = with_noise(model(), PARTS, range(3), seed=0)
    drawn = [
        noisy.get_parameter(f"blocks.{layer}.mixer.{part}_proj.weight").detach().flatten()
        for layer in range(3)
        for part in PARTS
    ]
    among = torch.corrcoef(torch.stack(drawn)) - torch.eye(9)
    assert float(among.abs().max()) < 5 / math.sqrt(drawn[0].numel())


def test_the_copy_stays_tied():
    noisy = with_noise(model(), ["q"], [0], seed=0)
    assert noisy.output_matrix is noisy.embed.weight


def test_layers_without_attention_have_nothing_to_lose():
    plain = model(position="none", mixer="none")
    assert changed(plain, with_noise(plain, PARTS, range(3), seed=0)) == set()


def test_the_loss_is_the_cross_entropy_of_the_next_token():
    gpt = model(dropout=0.5).train()
    batch = tokens()
    found = batch_loss_nats(gpt, batch)
    assert gpt.training
    assert found == batch_loss_nats(gpt, batch)
    with torch.no_grad():
        logits = gpt.eval()(batch[:, :-1]).double()
    expected = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_queries_turned_to_noise_do_not_matter_where_all_keys_are_equal():
    """Keys of zero give equal scores whatever the query: a loss that may not move at all."""
    gpt = model()
    with torch.no_grad():
        gpt.blocks[0].mixer.k_proj.weight.zero_()
    without = with_noise(gpt, ["q"], [0], seed=0)
    assert batch_loss_nats(without, tokens()) == batch_loss_nats(gpt, tokens())
