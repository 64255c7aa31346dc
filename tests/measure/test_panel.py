import dataclasses
import math

import numpy as np
import pytest
import torch

import assay.nn.mixer
from assay.measure.panel import initial_panel
from assay.nn.model import GPT
from assay.presets import PRESETS, minigpt
from assay.schema import override

VOCAB, ROWS, LENGTH = 500, 8, 24


def tokens(rows=ROWS, length=LENGTH, vocab=VOCAB):
    generator = torch.Generator().manual_seed(5)
    return torch.randint(vocab, (rows, length + 1), generator=generator)


def appendix(**changes):
    """The article's appendix, small: N(0, 1) embedding, tied, no scale."""
    config = minigpt(vocab_size=VOCAB, max_seq_len=32, d_model=64, n_layers=2)
    return GPT.create(override(config, changes))


def wide(std):
    """Untied and wide: logits of variance near std² d_model, independent of the targets."""
    return appendix(init={"kind": "gaussian", "std": std}, tie_embeddings=False)


def test_the_appendix_as_written_is_told_that_it_repeats_its_input():
    panel = initial_panel(appendix(), tokens())
    assert panel.loss_nats > 2 * math.log(VOCAB)
    assert panel.p_current > 0.9
    assert not panel.sees_future
    (sentence,) = panel.words
    assert sentence.startswith("The model repeats its input: the current token gets p = ")
    assert "model.init=gpt2" in sentence
    assert "model.tie_embeddings=false" in sentence


@pytest.mark.parametrize("cure", [{"init": "gpt2"}, {"tie_embeddings": False}])
def test_the_cures_it_names_are_cures(cure):
    panel = initial_panel(appendix(**cure), tokens())
    assert panel.words == []
    assert abs(panel.loss_nats - math.log(VOCAB)) < 0.25


def test_a_logit_scale_narrows_the_logits_but_leaves_the_echo():
    scaled = initial_panel(appendix(logit_scale="inv_sqrt_d"), tokens())
    assert scaled.logit_variance < initial_panel(appendix(), tokens()).logit_variance / 32
    assert scaled.p_current > 20 / VOCAB
    assert scaled.words[0].startswith("The model repeats its input")


@pytest.mark.parametrize("name", ["tiny", "article-mlp", "nanogpt-char", "llama-like"])
def test_the_presets_of_sound_initialisation_are_silent(name):
    config = override(PRESETS[name](), {"vocab_size": VOCAB})
    assert initial_panel(GPT.create(config), tokens()).words == []


@pytest.mark.parametrize("std", [0.1, 0.15, 0.2])
def test_the_loss_of_wide_logits_follows_the_law_of_the_normal_variable(std):
    """Given the features, logits are V independent normals of variance s²; the targets, random.

    The loss is the mean of ln Σ exp z - z_target. Its first part is ln V + s²/2 with a standard
    deviation under √((exp s² - 1) / V), the worst case being that all tokens share their logits; a
    lognormal mean leans low by half that, squared. The second has deviation s/√V in that worst
    case, of V = 500 rows of the output matrix. Five deviations are allowed.
    """
    panel = initial_panel(wide(std), tokens())
    s2 = panel.logit_variance
    assert s2 == pytest.approx(std**2 * 64, rel=0.3)  # features have mean square 1 after the norm
    relative = (math.exp(s2) - 1) / VOCAB
    bound = 5 * math.sqrt(relative + s2 / VOCAB) + relative / 2
    assert abs(panel.loss_nats - panel.law_nats) < bound
    assert panel.law_nats == panel.uniform_nats + s2 / 2


def test_wide_logits_are_called_wide():
    panel = initial_panel(wide(0.2), tokens())
    (sentence,) = panel.words
    assert "the logits are wide (variance " in sentence
    assert f"ln V + s²/2 = {panel.law_nats:.2f}" in sentence
    assert "model.init.std" in sentence


def test_the_entropy_of_wide_logits_is_the_other_half_of_the_law():
    r"""H = ln Σ exp z - E_p z, and E_p z is s² for a normal z: ln V - s²/2."""
    panel = initial_panel(wide(0.1), tokens())
    s2 = panel.logit_variance
    bound = 5 * math.sqrt((1 + s2) * (math.exp(s2) - 1) / VOCAB)
    assert abs(panel.entropy_nats - (panel.uniform_nats - s2 / 2)) < bound


@pytest.mark.parametrize("position", ["learned", "rope", "alibi"])
def test_a_model_whose_mask_leaks_is_told_that_it_sees_the_future(monkeypatch, position):
    attend = assay.nn.mixer.attend

    def leaking(q, k, v, context, *, dropout=0.0):
        everything = torch.ones(1, 1, q.shape[2], k.shape[2], dtype=torch.bool)
        blind = dataclasses.replace(context, mask=everything)
        return attend(q, k, v, blind, dropout=dropout)

    model = appendix(init="gpt2", position=position)
    assert not initial_panel(model, tokens()).sees_future
    monkeypatch.setattr(assay.nn.mixer, "attend", leaking)
    panel = initial_panel(model, tokens())
    assert panel.sees_future
    assert panel.words[0].startswith("The model sees the future")


def test_targets_that_are_not_shifted_are_told_by_a_loss_that_is_too_good():
    """One token for ever: the token just read is the target, and the echo is always right."""
    panel = initial_panel(appendix(), torch.full((2, 9), 7))
    assert "knows something about the targets" in panel.words[0]


def test_every_figure_against_numpy():
    """Float32 sums over 500 terms are off by some 500 · 6e-8 of their size."""
    model, batch = appendix(logit_scale=0.05).eval(), tokens()
    with torch.no_grad():
        z = model(batch[:, :-1]).double().numpy()
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    rows, columns = np.indices((ROWS, LENGTH))
    panel = initial_panel(model, batch)
    exact = {"rel": 3e-5}
    assert panel.loss_nats == pytest.approx(
        -np.log(p[rows, columns, batch[:, 1:].numpy()]).mean(), **exact
    )
    assert panel.entropy_nats == pytest.approx(-(p * np.log(p)).sum(-1).mean(), **exact)
    assert panel.p_current == pytest.approx(p[rows, columns, batch[:, :-1].numpy()].mean(), **exact)
    centred = z - z.mean(-1, keepdims=True)
    assert panel.logit_variance == pytest.approx((centred**2).mean(), **exact)
    assert panel.uniform_nats == math.log(VOCAB)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_restored(training):
    model = appendix(dropout=0.5).train(training)
    assert initial_panel(model, tokens()) == initial_panel(model, tokens())
    assert model.training is training
    assert all(module.training is training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_that_is_no_number_does_not_pass_as_sound():
    model = appendix(init="gpt2")
    with torch.no_grad():
        model.embed.weight[0, 0] = float("nan")
    assert initial_panel(model, tokens()).words
