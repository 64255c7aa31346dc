"""The article's own code and pseudo-code against our configs of them."""

import math

import pytest
import torch
from article_code import MiniGPT, generate

from assay import presets
from assay.nn.model import GPT

V, T, D, H, L = 23, 12, 16, 4, 3
EXACT = {"rtol": 1e-10, "atol": 1e-10}

OUTSIDE = {"embed": "embed.token_emb", "position.table": "embed.pos_emb", "final_norm": "ln_f"}
INSIDE = {
    "mixer_norm": "ln1",
    "mixer.out_proj": "attn.out_proj",
    "mlp_norm": "ln2",
    "mlp.up": "ffn.net.0",
    "mlp.down": "ffn.net.2",
}


def ours_from_theirs(state, n_layers):
    """Name the appendix's weights as we do; its packed q, k, v come apart row by row."""
    names = dict(OUTSIDE)
    for i in range(n_layers):
        names |= {f"blocks.{i}.{a}": f"blocks.{i}.{b}" for a, b in INSIDE.items()}
    ours = {
        f"{a}.{leaf}": state[f"{b}.{leaf}"]
        for a, b in names.items()
        for leaf in ("weight", "bias")
        if f"{b}.{leaf}" in state
    }
    for i in range(n_layers):
        for leaf in ("weight", "bias"):
            packed = state[f"blocks.{i}.attn.in_proj_{leaf}"].chunk(3)
            for letter, part in zip("qkv", packed, strict=True):
                ours[f"blocks.{i}.mixer.{letter}_proj.{leaf}"] = part
    return ours


@pytest.fixture
def both():
    """The appendix's model and ours with its weights, biases and norms moved off 0 and 1."""
    theirs = MiniGPT(V, T, D, H, L).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    config = presets.minigpt(vocab_size=V, max_seq_len=T, d_model=D, n_heads=H, n_layers=L)
    ours = GPT(config).double().eval()
    ours.load_state_dict(ours_from_theirs(theirs.state_dict(), L))
    return theirs, ours


def test_minigpt_has_the_logits_of_the_appendix(both):
    theirs, ours = both
    tokens = torch.randint(V, (3, T))
    torch.testing.assert_close(ours(tokens), theirs(tokens), **EXACT)


def test_minigpt_trains_with_the_gradients_of_the_appendix(both):
    theirs, ours = both
    tokens = torch.randint(V, (3, T))
    for model in both:
        model(tokens).logsumexp(-1).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    mapped = ours_from_theirs(gradients, L)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, mapped[name], **EXACT)


class Letters:
    """The tokenizer that the appendix's `generate` asks for."""

    def encode(self, text):
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids):
        return "".join(chr(ord("a") + i) for i in ids)


@pytest.mark.parametrize("temperature", [0.5, 1.3])
def test_the_generate_of_the_appendix_draws_the_same_text_from_both(both, temperature):
    texts = []
    for model in both:
        torch.manual_seed(5)
        texts.append(generate(model, Letters(), "hat", max_new=T - 3, temperature=temperature))
    assert texts[0] == texts[1]
    assert len(texts[0]) == T


def test_the_generate_of_the_appendix_breaks_past_its_length(both):
    theirs, _ = both
    with pytest.raises(IndexError, match="out of range"):
        generate(theirs, Letters(), "hat", max_new=T)


def moments(draws):
    """Mean, standard deviation and largest size over all draws of one parameter."""
    values = torch.stack(draws).flatten().double()
    return values.mean(), values.std(), values.abs().max()


@pytest.mark.slow
def test_weights_start_from_the_distributions_of_the_appendix():
    n_draws, config = 60, presets.minigpt(vocab_size=V, max_seq_len=T, d_model=D, n_heads=H)
    ours = [dict(GPT.create(config, seed=s).named_parameters()) for s in range(n_draws)]
    theirs = [ours_from_theirs(MiniGPT(V, T, D, H, 4).state_dict(), 4) for _ in range(n_draws)]
    assert ours[0].keys() == theirs[0].keys()
    for name in ours[0]:
        mean, std, largest = moments([draw[name].detach() for draw in ours])
        their_mean, their_std, their_largest = moments([draw[name] for draw in theirs])
        n = n_draws * ours[0][name].numel()
        # The mean of n values has error std/√n, their standard deviation at most std/√2n; both
        # sides err, so √2 more. Five of these: one false alarm in 10^4 runs over 100 comparisons.
        assert abs(mean - their_mean) <= 5 * math.sqrt(2 / n) * their_std, name
        assert abs(std - their_std) <= 5 * math.sqrt(1 / n) * their_std, name
        # The largest of n values uniform to a bound b falls short of b by b/n on average.
        if "embed" not in name and "table" not in name:
            assert abs(largest - their_largest) <= 20 / n * their_largest, name


def algorithm_1(tokens, w, n_layers):
    """The pseudo-code, line by line, for one sequence; numbered as in the article."""
    d = w["embed.weight"].shape[1]
    h = []
    for i in range(len(tokens)):  # 1
        e_tok = w["embed.weight"][tokens[i]]  # 2
        e_pos = w["position.table.weight"][i]  # 3
        h.append([float(e_tok[j] + e_pos[j]) for j in range(d)])  # 4
    h = [layer_norm(row, w, "embed_norm") for row in h]  # 6
    for layer in range(n_layers):  # 7
        h = [mlp(row, w, f"blocks.{layer}.mlp") for row in h]  # 8
        h = [layer_norm(row, w, f"blocks.{layer}.mlp_norm") for row in h]  # 9
    # 11: W_out is the transpose of E_tok
    return torch.tensor([affine(row, w["embed.weight"], None) for row in h], dtype=torch.float64)


def affine(row, weight, bias):
    return [
        sum(x * float(a) for x, a in zip(row, weight[i], strict=True))
        + (0.0 if bias is None else float(bias[i]))
        for i in range(len(weight))
    ]


def mlp(row, w, name):
    inner = affine(row, w[f"{name}.up.weight"], w[f"{name}.up.bias"])
    inner = [x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in inner]
    return affine(inner, w[f"{name}.down.weight"], w[f"{name}.down.bias"])


def layer_norm(row, w, name):
    mean = sum(row) / len(row)
    variance = sum((x - mean) ** 2 for x in row) / len(row)
    gamma, beta = w[f"{name}.weight"], w[f"{name}.bias"]
    return [
        float(gamma[j]) * (row[j] - mean) / math.sqrt(variance + 1e-5) + float(beta[j])
        for j in range(len(row))
    ]


@pytest.mark.parametrize(("scale", "factor"), [("none", 1.0), ("inv_sqrt_d", 1 / math.sqrt(8))])
def test_the_article_mlp_is_algorithm_1(scale, factor):
    config = presets.article_mlp(
        vocab_size=V, max_seq_len=T, d_model=8, n_layers=2, logit_scale=scale
    )
    model = GPT.create(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    tokens = torch.randint(V, (5,))
    expected = factor * algorithm_1(tokens, model.state_dict(), 2)
    torch.testing.assert_close(model(tokens[None])[0], expected, **EXACT)
