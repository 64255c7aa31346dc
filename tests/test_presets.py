import pytest
import torch
from torch.nn import functional as F

from assay import presets
from assay.nn.model import GPT
from assay.nn.norm import RMSNormConfig
from assay.nn.position import RopeConfig
from assay.schema import override

VOCAB = 31


def n_parameters(config):
    with torch.device("meta"):
        return sum(p.numel() for p in GPT(config).parameters())


@pytest.mark.parametrize(
    ("size", "published"),
    [
        ("124M", 124_439_808),
        ("355M", 354_823_168),
        ("774M", 774_030_080),
        ("1.5B", 1_557_611_200),
    ],
)
def test_gpt2_has_the_parameters_of_the_released_models(size, published):
    assert n_parameters(presets.gpt2(size)) == published


def test_the_names_of_gpt2_are_its_sizes():
    by_name = [presets.PRESETS[n]() for n in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")]
    assert by_name == [presets.gpt2(size) for size in ("124M", "355M", "774M", "1.5B")]


def test_nanogpt_has_the_parameters_its_recipe_reports():
    config = override(presets.nanogpt_char(), {"vocab_size": 65})
    positions = 64 * 128  # which its own count leaves out
    assert n_parameters(config) - positions == 4 * (12 * 128**2 + 2 * 128) + 128 + 65 * 128
    assert round((n_parameters(config) - positions) / 1e6, 2) == 0.80


def test_the_default_has_the_size_it_says():
    config = override(presets.tiny(), {"vocab_size": VOCAB})
    assert round((n_parameters(config) - VOCAB * config.d_model) / 1e6, 1) == 0.8


def test_minigpt_has_the_parameters_of_the_appendix_counted_by_hand():
    config = presets.minigpt(vocab_size=100, max_seq_len=50, d_model=24, n_heads=3, n_layers=2)
    attention = 4 * 24**2 + 4 * 24
    mlp = 2 * 4 * 24**2 + 4 * 24 + 24
    norms = 2 * 2 * 24
    assert n_parameters(config) == 100 * 24 + 50 * 24 + 2 * (attention + mlp + norms) + 2 * 24


def test_the_article_mlp_has_neither_attention_nor_residual_and_ends_without_a_second_norm():
    names = dict(GPT(presets.article_mlp(vocab_size=VOCAB, n_layers=2)).named_parameters())
    parts = {name.removesuffix(".weight").removesuffix(".bias") for name in names}
    layers = {f"blocks.{i}.{part}" for i in (0, 1) for part in ("mlp_norm", "mlp.up", "mlp.down")}
    assert parts == {"embed", "position.table", "embed_norm"} | layers


def test_llama_like_is_a_llama():
    config = presets.llama_like(vocab_size=VOCAB)
    assert (config.position, config.norm) == (RopeConfig(), RMSNormConfig(eps=1e-5))
    assert (config.mlp.kind, config.mixer.kv_heads, config.mixer.n_heads) == ("swiglu", 4, 8)
    names = [name for name, _ in GPT(config).named_parameters()]
    assert "unembed.weight" in names
    assert not [name for name in names if name.endswith("bias")]


def small(name):
    """The preset at a size that a test can train: its own kinds, fewer numbers."""
    config = presets.PRESETS[name]()
    changes = {"vocab_size": VOCAB, "n_layers": 2, "max_seq_len": 32}
    return override(config, changes | {"d_model": 8 * max(1, config.n_heads)})


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_learns_from_one_step(name):
    model = GPT.create(small(name), seed=0)
    tokens = torch.randint(VOCAB, (4, 17))

    def loss():
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    before = loss_in_evaluation(model, loss)
    loss().backward()
    squared = sum(p.grad.square().sum() for p in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-3 / squared.sqrt() * parameter.grad
    # A step of length 1e-3 down the gradient g lowers the loss by 1e-3 |g|, curvature aside.
    assert loss_in_evaluation(model, loss) < before - 1e-4 * squared.sqrt().item()


def loss_in_evaluation(model, loss):
    model.eval()
    with torch.no_grad():
        value = loss().item()
    model.train()
    return value
