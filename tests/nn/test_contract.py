"""What every model must do, whatever its fields: run over a pairwise cover of the choices.

Tolerance of float64 comparisons: 1e-10. Both sides do some 10^3 roundings of 2^-53 a value, and
activations stay within 10^3, which makes 10^-10 in the worst case; a wrong formula is off by 10^-3.
"""

from itertools import pairwise

import pytest
import torch
from cover import CASES, CHOICES, LENGTH, SEQ_LEN, VOCAB, legal_pairs, shaken, tokens_of
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from assay.errors import ConfigError
from assay.nn.model import GPT, ModelConfig
from assay.nn.reference import reference_greedy, reference_logits
from assay.schema import decode, override

EXACT = {"rtol": 1e-10, "atol": 1e-10}
every_case = pytest.mark.parametrize("name", CASES)


def holds(config, field, index):
    """Whether a config has this choice of CHOICES, defaults filled in."""
    wanted = CHOICES[field][index]
    alone = decode(ModelConfig, {"d_model": 16, "position": "none", field: wanted})
    return getattr(config, field) == getattr(alone, field)


def test_every_two_legal_choices_meet_in_some_case():
    held = {
        name: {(f, i) for f in CHOICES for i in range(len(CHOICES[f])) if holds(config, f, i)}
        for name, config in CASES.items()
    }
    pairs = {frozenset([(one, a), (other, b)]) for one, a, other, b in legal_pairs()}
    assert len(pairs) > 1000
    assert not [pair for pair in pairs if not any(pair <= choices for choices in held.values())]


@every_case
def test_logits_are_those_of_the_readable_twin(name):
    model, tokens = shaken(name), tokens_of(2, LENGTH)
    torch.testing.assert_close(model(tokens), reference_logits(model, tokens), **EXACT)


@every_case
@pytest.mark.shapes_checked_by_others
def test_changing_a_token_leaves_all_logits_before_it_bit_equal(name):
    model, tokens = shaken(name), tokens_of(1, LENGTH)
    before = model(tokens)
    for t in range(LENGTH):
        changed = tokens.clone()
        changed[0, t] = (changed[0, t] + 1) % VOCAB
        after = model(changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.equal(after[:, t], before[:, t])


@every_case
@pytest.mark.parametrize("chunks", [(1,) * LENGTH, (4, 3, 2), (LENGTH,)], ids=str)
def test_reading_in_chunks_through_the_cache_equals_one_pass(name, chunks):
    model, tokens = shaken(name), tokens_of(2, LENGTH)
    cache = model.new_cache()
    parts = [model(part, cache) for part in tokens.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), **EXACT)
    assert cache.length == LENGTH


@every_case
@pytest.mark.parametrize("chunks", [None, (1,) * LENGTH, (3, 4, 2)], ids=str)
def test_rows_padded_on_the_left_equal_each_row_alone(name, chunks):
    model, lengths = shaken(name), (LENGTH, 5, 1)
    tokens, padding = tokens_of(3, LENGTH), torch.tensor([LENGTH - n for n in lengths])
    if chunks is None:
        padded = model(tokens, padding=padding)
    else:
        cache = model.new_cache()
        parts = [model(part, cache, padding) for part in tokens.split(chunks, dim=1)]
        padded = torch.cat(parts, dim=1)
    for row, length in enumerate(lengths):
        alone = model(tokens[row : row + 1, -length:])[0]
        torch.testing.assert_close(padded[row, -length:], alone, **EXACT)


@every_case
@pytest.mark.shapes_checked_by_others
def test_a_batch_equals_its_rows_one_by_one(name):
    model, tokens = shaken(name), tokens_of(4, LENGTH)
    rows = torch.cat([model(row[None]) for row in tokens])
    torch.testing.assert_close(model(tokens), rows, **EXACT)


@every_case
def test_evaluation_draws_no_dropout_and_training_draws_it_where_it_is_set(name):
    model, tokens = shaken(name), tokens_of(2, LENGTH)
    assert torch.equal(model(tokens), model(tokens))
    config = CASES[name]
    drops = config.dropout > 0 or getattr(config.mixer, "dropout", 0.0) > 0
    model.train()
    try:
        assert torch.equal(model(tokens), model(tokens)) != drops
    finally:
        model.eval()


@every_case
@pytest.mark.shapes_checked_by_others
def test_the_meta_device_has_the_same_names_and_shapes(name):
    with torch.device("meta"):
        meta = GPT(CASES[name])
    real = GPT.create(CASES[name])
    assert {n: p.shape for n, p in meta.named_parameters()} == {
        n: p.shape for n, p in real.named_parameters()
    }
    assert list(meta.state_dict()) == [n for n, _ in real.named_parameters()]  # and no buffers
    assert meta(tokens_of(2, 5).to("meta")).shape == (2, 5, VOCAB)


@every_case
@pytest.mark.shapes_checked_by_others
def test_saved_and_loaded_weights_give_bit_equal_logits(name, tmp_path):
    model, tokens = shaken(name), tokens_of(2, LENGTH)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    loaded = GPT.create(CASES[name], seed=99).double().eval()
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(loaded(tokens), model(tokens))


def cannot_learn(config, name):
    """A shift of all keys by one vector adds q·b to every score of a row: softmax ignores it."""
    turned = config.position.kind == "rope"
    return name.endswith("k_proj.bias") and not turned and not config.mixer.qk_norm


@every_case
def test_every_parameter_gets_a_finite_gradient_that_is_somewhere_not_zero(name):
    model, tokens = shaken(name), tokens_of(3, LENGTH + 1)
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    rounding = 1e-14 * max(gradient.abs().max() for gradient in gradients)
    for parameter, gradient in zip(names, gradients, strict=True):
        assert gradient.isfinite().all(), parameter
        if cannot_learn(CASES[name], parameter):
            assert gradient.abs().max() <= rounding, parameter
        else:
            assert gradient.abs().max() > 1e-9, parameter


@every_case
@pytest.mark.shapes_checked_by_others
def test_initial_weights_of_a_shared_name_and_shape_do_not_depend_on_other_fields(name):
    config = CASES[name]
    other = override(
        config,
        {
            "position": "learned",
            "norm": "layer",
            "block": "plain",
            "mixer": "attention",
            "mlp": "geglu",
            "bias": True,
            "tie_embeddings": False,
        },
    )
    mine = dict(GPT.create(config, seed=5).named_parameters())
    theirs = dict(GPT.create(other, seed=5).named_parameters())
    shared = [n for n in mine if n in theirs and mine[n].shape == theirs[n].shape]
    assert "embed.weight" in shared
    for parameter in shared:
        a, b = mine[parameter].detach(), theirs[parameter].detach()
        if config.init.kind == "torch" and parameter.endswith(("q_proj.weight", "down.bias")):
            # PyTorch's bounds count the rows of the packed matrix and the inputs of the layer:
            # kv heads and d_ff stretch the same draws.
            torch.testing.assert_close(a / a.abs().max(), b / b.abs().max(), rtol=1e-6, atol=0)
        else:
            assert torch.equal(a, b), parameter


@every_case
@pytest.mark.shapes_checked_by_others
def test_equal_seeds_give_bit_equal_weights_and_other_seeds_other_ones(name):
    one, same, other = (GPT.create(CASES[name], seed=s).state_dict() for s in (7, 7, 8))
    for parameter, weight in one.items():
        assert torch.equal(weight, same[parameter])
        constant = bool((weight == weight.flatten()[0]).all())  # norms and zero biases
        assert torch.equal(weight, other[parameter]) == constant, parameter


U_BF16 = 2.0**-9  # unit roundoff: eight significant bits
ROUNDINGS_OF_A_LAYER = 13 + 10
"""q, k, v: 3 each (input, weight, output); softmax 1, mix 1, out_proj 2. up, gate: 3 each;
activation 1, product 1, down 2."""


def relative_error(a, b):
    return ((a.float() - b).norm() / b.norm()).item()


@every_case
def test_bfloat16_autocast_stays_within_the_sum_of_its_roundings(name):
    # Random matrices stretch an error as much as the signal, so roundings add up at worst; an
    # activation or a softmax at most doubles a relative error (relu2 does: d(x²)/x² = 2 dx/x).
    model = GPT.create(CASES[name], seed=1).eval()
    model.load_state_dict(shaken(name).state_dict())
    tokens = tokens_of(4, LENGTH)
    with torch.no_grad():
        wide = model.features(tokens)
        with torch.autocast("cpu", torch.bfloat16):
            narrow, logits = model.features(tokens), model(tokens)
    bound = 2 * CASES[name].n_layers * ROUNDINGS_OF_A_LAYER * U_BF16
    assert U_BF16 / 4 < relative_error(narrow, wide) < bound
    assert logits.isfinite().all()


@pytest.mark.parametrize("position", ["none", "learned", "sinusoidal", "rope", "alibi"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("n_new", [0, 1, 2, 9])
@pytest.mark.shapes_checked_by_others
def test_greedy_decoding_through_the_cache_equals_the_naive_loop(position, window, n_new):
    config = decode(
        ModelConfig,
        {
            "vocab_size": VOCAB,
            "max_seq_len": SEQ_LEN,
            "d_model": 16,
            "n_layers": 2,
            "position": position,
            "mixer": {"kind": "attention", "window": window},
            "init": {"kind": "gaussian", "std": 0.5},
        },
    )
    model = GPT.create(config, seed=4).double().eval()
    prompt = tokens_of(3)
    tokens, cache = prompt[None], model.new_cache()
    new = tokens
    for _ in range(n_new):
        new = model(new, cache)[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat((tokens, new), dim=1)
    assert torch.equal(reference_greedy(model, prompt, n_new), tokens[0])


def test_the_naive_loop_reads_only_the_last_tokens_once_the_window_is_full():
    name = next(name for name, config in CASES.items() if config.position.kind == "learned")
    prompt, past = tokens_of(SEQ_LEN), tokens_of(5, seed=8)
    short = reference_greedy(shaken(name), prompt, 4)
    assert torch.equal(reference_greedy(shaken(name), torch.cat((past, prompt)), 4)[5:], short)


def test_a_learned_table_that_is_too_short_is_refused_by_model_and_twin():
    model = GPT.create(override(ModelConfig(), {"vocab_size": 5, "position": "learned"}))
    tokens = torch.zeros(1, 257, dtype=torch.long)
    for run in (model, lambda tokens: reference_logits(model, tokens)):
        with pytest.raises(ConfigError, match=r"model\.max_seq_len: .* ends at 256 .* found 257"):
            run(tokens)


def test_a_model_without_a_vocabulary_is_refused():
    with pytest.raises(ConfigError, match=r"model\.vocab_size: null found"):
        GPT(ModelConfig())


@settings(max_examples=40, deadline=None)
@given(
    n_heads=st.integers(1, 24),
    window=st.integers(1, 6),
    cuts=st.lists(st.integers(1, 11), max_size=4, unique=True).map(sorted),
)
def test_any_number_of_heads_and_any_chunks_agree_with_the_twin(n_heads, window, cuts):
    config = decode(
        ModelConfig,
        {
            "vocab_size": VOCAB,
            "d_model": 2 * n_heads,
            "n_layers": 1,
            "position": "alibi",
            "mixer": {"kind": "attention", "n_heads": n_heads, "window": window},
            "init": {"kind": "gaussian", "std": 0.5},
        },
    )
    model = GPT.create(config).double().eval()
    tokens, cache = tokens_of(1, 12), model.new_cache()
    parts = [model(tokens[:, a:b], cache) for a, b in pairwise([0, *cuts, 12])]
    expected = reference_logits(model, tokens)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, **EXACT)
