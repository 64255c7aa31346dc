"""Steps of fixed shape, as they run without a graph; what a device records is in test_cuda.py."""

import copy

import pytest
import torch
from shaken import CONFIGS, LENGTH, VOCAB, label, model_of, small

from assay.decode import cuda_graph_decoder
from assay.errors import ConfigError
from assay.generate import GenerateOptions, generate
from assay.sampling import SamplingConfig

PROMPTS = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5, 8]]
DRAWN = SamplingConfig(temperature=1.2)


@pytest.fixture(autouse=True)
def _several_widths(monkeypatch):
    monkeypatch.setattr(cuda_graph_decoder, "_LEAST_WIDTH", 4)


def steps_of(model, reader, prompts=PROMPTS, **options):
    options = GenerateOptions(reader=reader, **{"max_new_tokens": LENGTH, **options})
    run = generate(model, prompts, DRAWN, options=options)
    return [(step, run.logits.clone()) for step in run], run


def check_alike(model, **options):
    """To rounding in float64; the same tokens, so that both go on with the same text."""
    expected, _ = steps_of(model, "torch", **options)
    found, _ = steps_of(model, "graphs", **options)
    for (token, logits), (expected_token, expected_logits) in zip(found, expected, strict=True):
        assert token == expected_token
        torch.testing.assert_close(logits, expected_logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", CONFIGS, ids=label)
@pytest.mark.shapes_checked_by_others
def test_every_architecture_goes_on_as_with_a_growing_cache(config):
    """Rows of unequal length, and on beyond the context, where rows are cropped."""
    check_alike(model_of(config).double(), n_samples=2)


@pytest.mark.parametrize("position", ["rope", "alibi", "sinusoidal"])
def test_a_window_rolls_on(position):
    model = small(mixer={"kind": "attention", "window": 5}, position=position).double()
    check_alike(model, window="rolling", max_new_tokens=3 * LENGTH)


def test_rows_that_have_ended_are_filled_up():
    model = small().double()
    plain, _ = steps_of(model, "torch")
    stop = next(token for step, _ in plain[2:] for token in step)
    check_alike(model, stop_tokens=(stop,))


def test_a_step_has_the_shape_of_its_width_and_not_of_the_text(monkeypatch):
    model, widths = small(), []
    step = cuda_graph_decoder._Steps._step
    monkeypatch.setattr(
        cuda_graph_decoder._Steps,
        "_step",
        lambda self, width: widths.append(width) or step(self, width),
    )
    steps_of(model, "graphs", prompts=[[1, 2]], max_new_tokens=18)
    # the prompt gives the first token; then columns 2 to 18 are read, and 20 fit in all
    assert widths == [4] * 2 + [8] * 4 + [16] * 8 + [20] * 3


def test_what_is_not_written_yet_is_hidden_whatever_it_is():
    model = small().double()
    expected, _ = steps_of(model, "torch", max_new_tokens=4)
    options = GenerateOptions(reader="graphs", max_new_tokens=4)
    run = generate(model, PROMPTS, DRAWN, options=options)
    found = [(next(run), run.logits.clone()), (next(run), run.logits.clone())]
    with torch.inference_mode():
        for layer in run._reader._steps._layers:
            layer._k[:, :, 9:], layer._v[:, :, 9:] = 1e6, 1e6
    found += [(step, run.logits.clone()) for step in run]
    for (_, logits), (_, expected_logits) in zip(found, expected, strict=True):
        torch.testing.assert_close(logits, expected_logits, rtol=0, atol=1e-10)


def test_the_model_is_left_as_it_was():
    model = small(dropout=0.5).train()
    before = copy.deepcopy(model.state_dict())
    steps_of(model, "graphs")
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_its_memory_is_that_of_the_text_asked_for():
    _, run = steps_of(small(), "graphs", prompts=[[1, 2, 3]], max_new_tokens=6)
    # 2 layers, keys and values, 32 channels of 4 bytes, 9 tokens
    assert run.cache_bytes == 2 * 2 * 32 * 4 * 9


def test_rounded_weights_are_read_too():
    model = small()
    found, _ = steps_of(model, "graphs", weights="int8")
    expected, _ = steps_of(model, "torch", weights="int8")
    torch.testing.assert_close(found[-1][1], expected[-1][1], rtol=1e-4, atol=1e-4)
    assert found[0][1].shape == (len(PROMPTS), VOCAB)


@pytest.mark.parametrize("fields", [{"exact": True}, {"use_cache": False}])
def test_what_has_no_fixed_shape_is_refused(fields):
    with pytest.raises(ConfigError, match=r"generate\.reader: graphs found with .*reader=torch"):
        steps_of(small(), "graphs", **fields)


def test_drafts_are_refused():
    with pytest.raises(ConfigError, match=r"generate\.lookup: 3 found.*generate\.reader=graphs"):
        steps_of(small(), "graphs", lookup=3)
