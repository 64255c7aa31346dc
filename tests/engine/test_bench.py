import pytest
import torch

from assay import presets
from assay.config import RunConfig
from assay.engine.bench import (
    Limits,
    measure_decoding,
    measure_limits,
    measure_training,
    with_vocabulary,
)
from assay.errors import ConfigError
from assay.nn.model import GPT, ModelConfig
from assay.schema import decode, override

L, D, T, V, B = 2, 32, 16, 50, 3
SIZES = {"n_layers": L, "d_model": D, "max_seq_len": T, "vocab_size": V, "mixer.n_heads": 2}
GPT2 = override(presets.gpt2(), SIZES | {"dropout": 0.0, "mixer.dropout": 0.0})
FIXED = {
    "batch_size": B,
    "device": "cpu",
    "precision": "fp32",
    "attention": "fused",
    "compile": "off",
}


def run_config(model):
    return RunConfig(model=model, train=decode(RunConfig, {"train": FIXED}).train)


def test_the_share_in_training_is_flops_over_time_and_rate():
    """By hand: 24LTD² + 4LD T(T+1)/2 + 2TDV forward, twice that backward; 1 FLOP/s is the rate."""
    found = measure_training(run_config(GPT2), Limits(0.5, 1.0, 1.0), seconds=0.05)
    forward = 24 * L * T * D**2 + 2 * L * D * T * (T + 1) + 2 * T * D * V
    assert found.tokens_per_s * found.step_s == pytest.approx(B * T)
    assert found.share == pytest.approx(3 * B * forward / found.step_s)
    assert found.way == "eager fp32, attention fused"
    assert found.steps >= 1


@pytest.mark.parametrize("tied", [True, False])
def test_the_share_in_decoding_is_bytes_over_time_and_rate(tied):
    """By hand: all weights but looked-up tables, and 2LD numbers a cached token, 4 bytes each."""
    config = override(GPT2, {"tie_embeddings": tied})
    model = GPT.create(config)
    found = measure_decoding(model, Limits(1.0, 1.0, 1e6), rows=B, seconds=0.01)
    looked_up = {"position.table.weight"} | (set() if tied else {"embed.weight"})
    weights = sum(p.numel() for name, p in model.named_parameters() if name not in looked_up)
    prompt = T // 2  # and as many tokens after it: the cache is 3/4 full on average
    cached = B * 2 * L * D * (prompt + (1 + T - prompt) // 2)
    assert found.prompt_tokens == prompt
    assert found.share == pytest.approx(4 * (weights + cached) * found.tokens_per_s / B / 1e6)
    assert found.first_token_s > 0


def test_a_model_of_one_token_of_context_can_be_measured():
    model = GPT.create(override(GPT2, {"max_seq_len": 1}))
    assert measure_decoding(model, Limits(1, 1, 1), rows=1, seconds=0.01).prompt_tokens == 1


@pytest.mark.slow
def test_limits_are_those_of_a_computer():
    """More than a pocket calculator's and less than all the machines of the world."""
    limits = measure_limits(torch.device("cpu"))
    assert 1e6 < limits.fp32_flops_per_s <= limits.flops_per_s < 1e21
    assert limits.bf16_flops_per_s <= limits.flops_per_s
    assert 1e6 < limits.read_bytes_per_s < 1e18


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 2048),
        ({"data.tokenizer": "byte"}, 257),
        ({"data.tokenizer.vocab_size": 300}, 300),
        ({"model.vocab_size": 7, "data.tokenizer": "char"}, 7),
    ],
)
def test_the_vocabulary_is_the_tokenizers_where_no_text_is_needed(fields, expected):
    config = override(RunConfig(), fields)
    assert with_vocabulary(config).model.vocab_size == expected


def test_a_vocabulary_that_only_a_text_tells_is_asked_for():
    config = override(RunConfig(), {"data.tokenizer": "char"})
    with pytest.raises(ConfigError, match=r"^model\.vocab_size: null found; .*char"):
        with_vocabulary(config)


def test_the_default_model_is_measured_with_its_own_optimizer():
    model = override(ModelConfig(), {"vocab_size": V, "max_seq_len": T, "d_model": D})
    assert measure_training(run_config(model), Limits(1, 1, 1), seconds=0.01).tokens_per_s > 0
