"""Closed forms against models built on the meta device and against PyTorch's own FLOP counter."""

import json
import math
import sys
import tracemalloc

import pytest
import torch
from allpairspy import AllPairs
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from assay.count import (
    Count,
    attention_overtakes_at,
    count,
    tying_region,
    tying_saving,
)
from assay.errors import ConfigError
from assay.nn.model import GPT, ModelConfig
from assay.presets import GPT2Size, gpt2, llama_like, tiny
from assay.schema import decode, override

N_TOKENS = 11  # odd, and beyond the window of 5

CHOICES = {
    "position": [{"kind": k} for k in ("none", "learned", "sinusoidal", "rope", "alibi")]
    + [{"kind": "rope", "fraction": 0.25}],
    "norm": [
        {"kind": "none"},
        {"kind": "layer"},
        {"kind": "layer", "affine": "scale"},
        {"kind": "layer", "affine": "none"},
        {"kind": "sigma"},
        {"kind": "sigma", "affine": "scale"},
        {"kind": "rms"},
        {"kind": "rms", "affine": "none"},
    ],
    "block": ["pre", "post", "parallel", "plain"],
    "mixer": [
        {"kind": "none"},
        {"kind": "attention", "n_heads": 4, "qk_norm": False},
        {"kind": "attention", "n_heads": 4, "qk_norm": True},
        {"kind": "attention", "n_heads": 4, "n_kv_heads": 2, "window": 5, "qk_norm": False},
        {"kind": "attention", "n_heads": 4, "n_kv_heads": 1, "qk_norm": True},
        {"kind": "attention", "n_heads": 2, "window": 30, "qk_norm": False},
    ],
    "mlp": [{"kind": k} for k in ("gelu", "relu", "relu2", "swiglu", "geglu")]
    + [{"kind": "gelu", "d_ff": 19}, {"kind": "swiglu", "d_ff": 19}],
    "tie_embeddings": [True, False],
    "bias": [True, False],
    "logit_scale": ["none", "inv_sqrt_d", 0.5],
    "soft_cap": [None, 30.0],
}


def is_legal(row):
    chosen = dict(zip(CHOICES, row, strict=False))
    no_mixer = chosen.get("mixer", {}).get("kind") == "none"
    needs_one = chosen.get("position", {}).get("kind") in ("rope", "alibi")
    return not (no_mixer and (needs_one or chosen.get("block") == "parallel"))


CONFIGS = [
    decode(
        ModelConfig,
        {"vocab_size": 37, "max_seq_len": 16, "d_model": 32, "n_layers": 3}
        | dict(zip(CHOICES, row, strict=True)),
    )
    for row in AllPairs(list(CHOICES.values()), filter_func=is_legal)
]


def on_meta(config):
    with torch.device("meta"):
        return GPT(config).eval()


def flops_of(forward):
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        forward()
    return counter.get_total_flops()


def test_the_pairwise_cover_is_not_empty_and_covers_every_variant():
    assert len(CONFIGS) >= 48  # 8 norms x 7 MLPs, less what the filter forbids, at the least
    assert {c.position.kind for c in CONFIGS} == {"none", "learned", "sinusoidal", "rope", "alibi"}
    assert {c.block.kind for c in CONFIGS} == set(CHOICES["block"])


def test_parameters_equal_those_of_the_built_model_part_by_part():
    for config in CONFIGS:
        model = on_meta(config)
        counted = count(config)
        assert counted.parameters == sum(p.numel() for p in model.parameters()), config
        for part in counted.parts:
            owners = [model.get_submodule(name) for name in _places(model, part.name)]
            numbers = [p.numel() for owner in owners for p in owner.parameters()]
            assert part.parameters == sum(numbers), (part.name, config)
            assert part.copies == max(len(owners), 1)


def _places(model, name):
    if name == "unembed" and model.unembed is None:
        return []
    return [name.replace("*", str(i)) for i in range(len(model.blocks))] if "*" in name else [name]


@pytest.mark.slow
def test_forward_flops_equal_those_of_torchs_counter():
    for config in CONFIGS:
        model = on_meta(config)
        measured = flops_of(lambda m=model: m(torch.zeros(1, N_TOKENS, dtype=torch.long)))
        assert count(config, seq_len=N_TOKENS).forward_flops == measured, config


@pytest.mark.slow
def test_decode_flops_equal_those_of_one_cached_step():
    for config in CONFIGS:
        model = on_meta(config)
        cache = model.new_cache()
        with torch.device("meta"):
            model(torch.zeros(1, N_TOKENS - 1, dtype=torch.long), cache)
        measured = flops_of(lambda m=model, c=cache: m(torch.zeros(1, 1, dtype=torch.long), c))
        assert count(config, seq_len=N_TOKENS).decode_flops == measured, config


def test_three_times_forward_is_what_a_training_step_costs():
    """The embedding is looked up, so each product passes gradients to both its factors."""
    config = override(tiny(), {"vocab_size": 37})
    model = on_meta(config)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        model(torch.zeros(1, N_TOKENS, dtype=torch.long)).sum().backward()
    assert count(config, seq_len=N_TOKENS).training_flops == counter.get_total_flops()


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("124M", 124_439_808),
        ("355M", 354_823_168),
        ("774M", 774_030_080),
        ("1.5B", 1_557_611_200),
    ],
)
def test_gpt2_has_its_published_number_of_parameters(size: GPT2Size, parameters: int):
    assert count(gpt2(size)).parameters == parameters


@given(
    n_layers=st.integers(1, 200),
    heads=st.integers(1, 200),
    vocab=st.integers(1, 300_000),
    n_tokens=st.integers(1, 1_000_000),
)
def test_the_standard_model_costs_what_the_article_should_say(n_layers, heads, vocab, n_tokens):
    d_model = 64 * heads
    sizes = {"d_model": d_model, "n_layers": n_layers, "mixer.n_heads": heads}
    config = override(gpt2(), sizes | {"vocab_size": vocab, "max_seq_len": n_tokens})
    blocks = 24 * n_layers * n_tokens * d_model**2 + 4 * n_layers * n_tokens**2 * d_model
    assert count(config).forward_flops == blocks + 2 * n_tokens * d_model * vocab
    assert attention_overtakes_at(config) == 6 * d_model


def visible_by_hand(n_tokens, window):
    return sum(1 for q in range(n_tokens) for k in range(q + 1) if window is None or q - k < window)


@given(n_tokens=st.integers(1, 40), window=st.none() | st.integers(1, 50))
def test_a_causal_kernel_is_charged_for_visible_pairs_alone(n_tokens, window):
    mixer = {"kind": "attention", "n_heads": 4, "window": window}
    config = decode(ModelConfig, {"vocab_size": 9, "mixer": mixer})
    counted = count(config, seq_len=n_tokens)
    per_pair = 4 * config.n_layers * config.d_model
    hidden = n_tokens**2 - visible_by_hand(n_tokens, window)
    assert counted.forward_flops - counted.causal_forward_flops == per_pair * hidden


@given(
    kernel=st.sampled_from(["dense", "causal"]),
    window=st.none() | st.integers(1, 3000),
    kv_heads=st.sampled_from([1, 2, 4]),
)
def test_at_the_crossing_both_halves_of_the_blocks_cost_the_same(kernel, window, kv_heads):
    mixer = {"kind": "attention", "n_heads": 4, "n_kv_heads": kv_heads, "window": window}
    config = decode(ModelConfig, {"vocab_size": 9, "mixer": mixer})
    at = attention_overtakes_at(config, kernel=kernel)
    below, above = (
        (10_000_000, 10_000_001) if at is None else (max(1, math.floor(at)), math.ceil(at) + 1)
    )
    assert scores_less_rest(config, below, kernel) <= 0
    assert at is None or scores_less_rest(config, above, kernel) >= 0


def scores_less_rest(config, n_tokens, kernel):
    counted = count(config, seq_len=n_tokens)
    rest = sum(part.matrix_flops for part in counted.parts if part.name != "unembed")
    hidden = counted.forward_flops - counted.causal_forward_flops if kernel == "causal" else 0
    return counted.score_flops - hidden - rest


def test_without_attention_there_is_nothing_to_overtake():
    config = decode(ModelConfig, {"vocab_size": 9, "mixer": "none", "position": "learned"})
    assert attention_overtakes_at(config) is None
    assert count(config).score_share == 0
    assert count(config).cache_bytes_fp32 == 0


def test_the_t2_term_is_18_percent_of_the_blocks_of_gpt2_at_1024_tokens():
    assert count(gpt2(), seq_len=1024).score_share == pytest.approx(1024 / (6 * 768 + 1024))
    assert f"{count(gpt2(), seq_len=1024).score_share:.0%}" == "18%"


@pytest.mark.parametrize(("window", "held"), [(None, N_TOKENS), (5, 5), (30, N_TOKENS)])
def test_cache_bytes_equal_the_keys_and_values_a_step_reads(window, held):
    mixer = {"kind": "attention", "n_heads": 4, "n_kv_heads": 2, "window": window}
    config = decode(ModelConfig, {"vocab_size": 9, "mixer": mixer, "n_layers": 3})
    cache = on_meta(config).new_cache()
    k = torch.empty(1, 2, N_TOKENS, config.d_model // 4, device="meta")
    for layer in cache.layers:
        layer.extend(k[:, :, :-1], k[:, :, :-1])
    read = [layer.extend(k[:, :, -1:], k[:, :, -1:]) for layer in cache.layers]
    assert read[0][0].shape[2] == held
    counted = count(config, seq_len=N_TOKENS)
    assert counted.cache_bytes_fp32 == sum(t.nbytes for pair in read for t in pair)
    assert counted.cache_bytes_bf16 == counted.cache_bytes_fp32 // 2


def test_training_bytes_are_those_of_the_tensors_adamw_keeps():
    config = decode(ModelConfig, {"vocab_size": 9, "d_model": 16, "n_layers": 1})
    model = GPT.create(config)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    optimizer.step()
    moments = [
        t
        for state in optimizer.state.values()
        for t in state.values()
        if t.dim()  # no counters
    ]
    counted = count(config)
    assert counted.weight_bytes_fp32 == sum(p.nbytes for p in model.parameters())
    assert counted.gradient_bytes == sum(p.grad.nbytes for p in model.parameters())
    assert counted.adamw_bytes == sum(t.nbytes for t in moments)
    assert counted.training_bytes == 16 * counted.parameters


def test_six_n_is_named_for_what_n_holds():
    counted = count(gpt2(), seq_len=1024)
    tables = (50_257 + 1024) * 768
    assert counted.six_n_flops == 6 * 124_439_808 * 1024
    assert counted.six_n_without_tables_flops == 6 * (124_439_808 - tables) * 1024


@pytest.mark.parametrize(
    ("config", "of_untied", "of_tied"),
    [(gpt2(), "23.7%", "31.0%"), (gpt2("1.5B"), "4.9%", "5.2%")],
)
def test_tying_saves_what_the_audit_says(config, of_untied, of_tied):
    saving = tying_saving(config)
    assert f"{saving.share_of_untied:.1%}" == of_untied
    assert f"{saving.share_of_tied:.1%}" == of_tied


def test_tying_saves_36_percent_of_six_layers_of_512():
    sizes = {"d_model": 512, "n_layers": 6, "mixer.n_heads": 8, "max_seq_len": 512}
    config = override(gpt2(), sizes)
    assert f"{tying_saving(config).share_of_untied:.1%}" == "36.4%"


def test_the_saving_is_the_same_asked_of_the_tied_and_of_the_untied_model():
    for config in CONFIGS:
        tied, untied = (override(config, {"tie_embeddings": t}) for t in (True, False))
        assert tying_saving(tied) == tying_saving(untied)
        n_tied, n_untied = count(tied).parameters, count(untied).parameters
        saving = tying_saving(tied)
        assert saving.parameters == n_untied - n_tied
        assert saving.share_of_untied == (n_untied - n_tied) / n_untied
        assert saving.share_of_tied == (n_untied - n_tied) / n_tied


def test_tying_saves_30_to_40_percent_between_2094_and_5584():
    low, high = tying_region(50_257)
    assert (round(low), round(high)) == (2094, 5584)


@given(vocab=st.integers(1000, 200_000), rows=st.integers(0, 400), share=st.floats(0.05, 0.45))
def test_the_region_inverts_the_share(vocab, rows, share):
    edge, same = tying_region(vocab, low=share, high=share, table_rows=rows)
    assert edge == same
    assert vocab / (2 * vocab + rows + 12 * edge) == pytest.approx(share, rel=1e-12)


def calls_of(act):
    """Return how many functions of Python are called."""
    calls = 0

    def see(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(see)
    try:
        act()
    finally:
        sys.setprofile(None)
    return calls


LLAMA_70B = {
    "vocab_size": 32_000,
    "max_seq_len": 4096,
    "d_model": 8192,
    "n_layers": 80,
    "mixer": {"kind": "attention", "n_heads": 64, "n_kv_heads": 8, "qk_norm": False},
    "mlp": {"kind": "swiglu", "d_ff": 28_672},
    "tie_embeddings": False,
}
A_TRILLION = LLAMA_70B | {
    "d_model": 25_600,
    "n_layers": 128,
    "mixer": {"kind": "attention", "n_heads": 160},
    "mlp": {"kind": "gelu"},
}


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [(LLAMA_70B, 68_976_648_192), (A_TRILLION, None)],  # Llama 2 70B as published
)
def test_a_model_too_big_to_build_is_counted_at_once_and_without_memory(sizes, parameters):
    """In as many calls as a model of one layer."""
    config = decode(ModelConfig, sizes)
    tracemalloc.start()
    counted = count(config)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 100_000
    shallow = override(config, {"n_layers": 1})
    count(shallow)  # what is done once is done
    assert calls_of(lambda: count(config)) <= calls_of(lambda: count(shallow))
    assert counted.parameters == parameters or counted.parameters > 10**12


def test_rows_add_up_and_end_with_the_total():
    *parts, total = count(llama_like(vocab_size=1000)).rows()
    assert total.part == "total"
    assert sum(row.parameters for row in parts) == total.parameters
    assert sum(row.forward_flops for row in parts) == total.forward_flops
    assert sum(row.parameter_share for row in parts) == pytest.approx(1, abs=1e-12)
    assert sum(row.flop_share for row in parts) == pytest.approx(1, abs=1e-12)


def test_as_dict_survives_json_and_holds_every_figure():
    counted = count(gpt2())
    read = json.loads(json.dumps(counted.as_dict()))
    assert read["seq_len"] == 1024
    assert read["parts"][0]["name"] == "embed"
    for name, value in counted.figures().items():
        assert read[name] == value
    assert {"parameters", "forward_flops", "training_bytes", "cache_bytes_bf16"} <= read.keys()
    assert not any(name.startswith("_") for name in read)


def test_left_out_the_length_is_the_models_own():
    assert count(gpt2()) == count(gpt2(), seq_len=1024)
    assert isinstance(count(gpt2()), Count)


@pytest.mark.parametrize(
    ("config", "seq_len", "message"),
    [
        (gpt2(), 0, "seq_len: 0 found; expected at least one"),
        (gpt2(), 1025, "seq_len: 1025 found; .*max_seq_len = 1024. Count for fewer"),
        (tiny(), None, "model.vocab_size: null found"),
    ],
)
def test_what_cannot_be_counted_is_named(config, seq_len, message):
    with pytest.raises(ConfigError, match=message):
        count(config, seq_len=seq_len)


def test_a_rope_model_is_counted_beyond_its_context():
    assert count(llama_like(vocab_size=9), seq_len=10**6).seq_len == 10**6
