import itertools
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from assay.errors import ConfigError, DataError, DivergedError
from assay.generate import GenerateOptions, generate
from assay.nn.block import BLOCKS
from assay.nn.model import GPT, ModelConfig
from assay.nn.position import POSITIONS
from assay.sampling import SamplingConfig, sample, uniforms
from assay.schema import decode

VOCAB, LENGTH = 29, 8
RAGGED = [[3, 1, 4], [1], [5, 9, 2, 6, 5], [3, 5]]
LONG = [*RAGGED, list(range(12))]  # the last is longer than the model's context
GREEDY, DRAWN = SamplingConfig(temperature=0.0), SamplingConfig(temperature=1.3)


def config_of(**fields):
    shape = {"vocab_size": VOCAB, "max_seq_len": LENGTH, "d_model": 16, "n_layers": 2}
    return decode(ModelConfig, {**shape, **fields})


def model_of(**fields):
    """A model in float64 whose logits are of order one, so that no two are near a tie."""
    model = GPT.create(config_of(**fields), seed=3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model.eval()


def naive(model, prompt, sampling, n_steps, *, row=(0, 0), seed=0, crop=True):
    """The oracle: one row, one whole forward pass a token, no cache and no padding."""
    tokens, numbers, all_logits = list(prompt), uniforms(seed, prompt=row[0], sample=row[1]), []
    for _ in range(n_steps):
        context = tokens[-model.config.max_seq_len :] if crop else tokens
        with torch.no_grad():
            logits = model(torch.tensor([context]))[:, -1]
        uniform = torch.tensor([next(numbers)], dtype=torch.float64)
        tokens.append(sample(logits, sampling, uniform, torch.tensor([tokens])).item())
        all_logits.append(logits[0])
    return tokens[len(prompt) :], torch.stack(all_logits)


def check_against_naive(model, prompts, sampling, n_steps, **options):
    crop = options.get("window", "recompute") == "recompute"
    options = GenerateOptions(max_new_tokens=n_steps, **options)
    run = generate(model, prompts, sampling, options=options)
    steps, logits = zip(*((step, run.logits) for step in run), strict=True)
    n = options.n_samples
    for row, (p, s) in enumerate(itertools.product(range(len(prompts)), range(n))):
        expected, expected_logits = naive(
            model, prompts[p], sampling, n_steps, row=(p, s), seed=options.seed, crop=crop
        )
        assert run.generated[row] == expected == [step[row] for step in steps]
        found = torch.stack([step_logits[row] for step_logits in logits])
        torch.testing.assert_close(found, expected_logits, rtol=0, atol=1e-10)


CACHE = pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no-cache"])
ARCHITECTURES = [
    *({"position": position().kind} for position in POSITIONS),
    *({"block": block().kind, "position": "learned"} for block in BLOCKS),
    {"mixer": "none", "position": "learned"},
    {"mixer": "none", "position": "sinusoidal", "block": "plain"},
    {"mixer": {"kind": "attention", "window": 3, "n_kv_heads": 2}},
    {"mixer": {"kind": "attention", "window": 1}, "position": "alibi"},
    {"tie_embeddings": False, "logit_scale": "inv_sqrt_d", "soft_cap": 5.0},
]
ROLLING = [
    {"mixer": {"kind": "attention", "window": window}, "position": position}
    for window, position in [(3, "rope"), (4, "alibi"), (1, "none"), (5, "sinusoidal")]
] + [{"mixer": "none", "position": position} for position in ("none", "sinusoidal")]


@CACHE
@pytest.mark.parametrize("fields", ARCHITECTURES, ids=str)
@pytest.mark.shapes_checked_by_others
def test_a_ragged_batch_equals_each_row_alone_by_full_passes(fields, use_cache):
    """Four steps fit into the context; then the longest row is cropped, and others after it."""
    check_against_naive(model_of(**fields), RAGGED, DRAWN, 9, use_cache=use_cache)


@CACHE
@pytest.mark.parametrize("prompts", [LONG, [LONG[-1]], [[7] * LENGTH], [[7] * (LENGTH - 1)]])
def test_prompts_at_and_over_the_context_are_cropped(prompts, use_cache):
    check_against_naive(model_of(), prompts, GREEDY, 4, use_cache=use_cache)


@CACHE
@pytest.mark.parametrize("fields", ROLLING, ids=str)
@pytest.mark.shapes_checked_by_others
def test_rolling_equals_full_passes_over_everything_so_far(fields, use_cache):
    check_against_naive(model_of(**fields), LONG, DRAWN, 12, use_cache=use_cache, window="rolling")


def largest_gap_by_step(model, n_steps):
    """Largest difference between the logits of the two window modes, at each step."""
    by_mode = []
    for window in ("recompute", "rolling"):
        options = GenerateOptions(max_new_tokens=n_steps, window=window)
        run = generate(model, [[1]], GREEDY, options=options)
        by_mode.append(torch.stack([run.logits for _ in run]))
    return (by_mode[0] - by_mode[1]).abs().amax((1, 2))


def test_the_two_windows_part_at_the_first_crop_where_layers_see_past_it():
    model = model_of(mixer={"kind": "attention", "window": 6}, n_layers=3)  # 3 * 5 tokens back
    gap = largest_gap_by_step(model, 12)
    assert gap[:LENGTH].max() < 1e-10
    assert gap[LENGTH] > 1e-6


def test_the_two_windows_agree_where_relative_positions_see_less_than_the_context():
    model = model_of(mixer={"kind": "attention", "window": 3}, n_layers=2)  # 2 * 2 tokens back
    assert largest_gap_by_step(model, 20).max() < 1e-10


@CACHE
def test_a_repetition_penalty_counts_the_whole_text_and_no_padding(use_cache):
    sampling = SamplingConfig(temperature=0.0, repetition_penalty=3.0)
    check_against_naive(model_of(), LONG, sampling, 9, use_cache=use_cache)


def test_samples_of_one_prompt_lie_side_by_side_and_differ():
    check_against_naive(model_of(), RAGGED, DRAWN, 6, n_samples=3, seed=11)
    run = generate(
        model_of(), [[1], [1]], DRAWN, options=GenerateOptions(max_new_tokens=8, n_samples=2)
    )
    list(run)
    assert len({tuple(row) for row in run.generated}) == 4


def test_a_list_cut_into_batches_draws_what_it_draws_whole():
    def run(prompts, first):
        options = GenerateOptions(max_new_tokens=7, n_samples=2, first_prompt=first)
        list(run := generate(model_of(), prompts, DRAWN, options=options))
        return run.generated

    assert run(LONG, 0) == run(LONG[:2], 0) + run(LONG[2:], 2)


def test_the_cache_of_a_rolling_window_stops_growing():
    window, fields = 4, {"position": "rope"}
    model = model_of(mixer={"kind": "attention", "window": window}, **fields)
    options = GenerateOptions(max_new_tokens=40, window="rolling")
    run = generate(model, [[1] * 30, [2]], GREEDY, options=options)
    held = [run.cache_bytes for _ in run]
    # 2 layers of keys and values, 2 rows, 16 channels of 8 bytes; a step joins its own key to the
    # window - 1 kept, and what is kept is a view into that
    assert set(held[1:]) == {2 * 2 * 2 * 16 * 8 * window}


def test_the_cache_is_given_up_once_tokens_fall_out_of_the_context():
    run = generate(model_of(), [[1]], GREEDY, options=GenerateOptions(max_new_tokens=12))
    held = [run.cache_bytes > 0 for _ in run]
    assert held == [True] * LENGTH + [False] * 4


def test_one_column_a_step_is_read_with_a_cache():
    model, widths = model_of(), []
    model.embed.register_forward_hook(lambda module, args, out: widths.append(out.shape[1]))
    list(generate(model, [[1, 2, 3]], GREEDY, options=GenerateOptions(max_new_tokens=5)))
    assert widths == [3, 1, 1, 1, 1]


def test_the_output_matrix_meets_one_column_a_step():
    def flops(vocab_size):
        run = generate(
            model_of(vocab_size=vocab_size),
            [[1, 2, 3], [4]],
            GREEDY,
            options=GenerateOptions(max_new_tokens=2),
        )
        with FlopCounterMode(display=False) as counter:
            list(run)
        return counter.get_total_flops()

    # one more token of vocabulary: a product and a sum for 16 channels, 2 rows, 2 steps
    assert flops(VOCAB + 1) - flops(VOCAB) == 2 * 16 * 2 * 2


# --- ending


def test_a_stop_token_ends_its_row_and_is_given_out():
    model = model_of()
    free = generate(model, RAGGED, DRAWN, options=GenerateOptions(max_new_tokens=10))
    list(free)
    stop = free.generated[2][3]
    options = GenerateOptions(max_new_tokens=10, stop_tokens=(stop,))
    run = generate(model, RAGGED, DRAWN, options=options)
    steps = list(run)
    for row, (whole, cut) in enumerate(zip(free.generated, run.generated, strict=True)):
        expected = whole[: whole.index(stop) + 1] if stop in whole else whole
        assert cut == expected
        padded = expected + [None] * (len(steps) - len(expected))
        assert [step[row] for step in steps] == padded
        assert run.finished[row] == (stop in whole)


def test_a_row_finished_by_the_caller_leaves_the_others_as_they_were():
    model, options = model_of(), GenerateOptions(max_new_tokens=10)
    free = generate(model, RAGGED, DRAWN, options=options)
    list(free)
    run = generate(model, RAGGED, DRAWN, options=options)
    for n, _ in enumerate(run, start=1):
        if n == 3:
            run.finish(2)
    assert run.generated[2] == free.generated[2][:3]
    assert [run.generated[r] for r in (0, 1, 3)] == [free.generated[r] for r in (0, 1, 3)]


def test_the_iteration_ends_when_every_row_has():
    run = generate(model_of(), RAGGED, DRAWN, options=GenerateOptions(max_new_tokens=50))
    next(run)
    for row in range(4):
        run.finish(row)
    assert list(run) == []


def test_no_new_tokens_means_no_step():
    run = generate(model_of(), RAGGED, DRAWN, options=GenerateOptions(max_new_tokens=0))
    assert list(run) == []
    assert run.generated == [[]] * 4
    assert run.logits is None


# --- the model is left as it was


def test_dropout_is_off_during_a_step_and_the_mode_comes_back_module_by_module():
    model = model_of(dropout=0.5)
    options = GenerateOptions(max_new_tokens=6)
    list(expected := generate(model, RAGGED, DRAWN, options=options))
    model.train()
    model.blocks[0].eval()  # somebody froze a block
    before = [module.training for module in model.modules()]
    run = generate(model, RAGGED, DRAWN, options=options)
    for _ in itertools.islice(run, 3):  # and the consumer leaves half way
        assert [module.training for module in model.modules()] == before
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    list(run)
    assert run.generated == expected.generated


def test_the_mode_comes_back_when_a_step_fails():
    model = model_of()
    with torch.no_grad():
        model.embed.weight[7] = math.nan
    model.train()
    with pytest.raises(DivergedError, match="nan found"):
        next(generate(model, [[7]], DRAWN, options=GenerateOptions()))
    assert all(module.training for module in model.modules())


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    list(generate(model_of(), RAGGED, DRAWN, options=GenerateOptions(max_new_tokens=3)))
    assert torch.equal(torch.get_rng_state(), before)


# --- what is refused


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, r"generate.window: rolling found for a model with full attention; expected one"),
        ({"mixer": "none", "position": "learned"}, r"rolling found for a model with learned"),
        (
            {"mixer": {"kind": "attention", "window": 4}, "position": "learned"},
            r"rolling found for a model with learned",
        ),
    ],
)
def test_a_model_that_cannot_roll_is_refused(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        generate(model_of(**fields), [[1]], GREEDY, options=GenerateOptions(window="rolling"))


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        ([], r"prompts: none found"),
        ([[1], []], r"prompts\[1\]: no token found.*start token"),
        ([[1], [2, VOCAB]], rf"prompts\[1\]\[1\]: token {VOCAB} found; expected 0 to {VOCAB - 1}"),
        ([[-1]], r"prompts\[0\]\[0\]: token -1 found"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused_with_its_place(prompts, sentence):
    with pytest.raises(DataError, match=sentence):
        generate(model_of(), prompts, GREEDY, options=GenerateOptions())


def test_a_stop_token_outside_the_vocabulary_is_refused():
    with pytest.raises(ConfigError, match=rf"stop_tokens: {VOCAB} found; expected ids under"):
        generate(model_of(), [[1]], GREEDY, options=GenerateOptions(stop_tokens=(VOCAB,)))


def test_options_are_read_from_a_file_that_has_only_lists():
    options = decode(GenerateOptions, {"stop_tokens": [3, 4], "window": "rolling"})
    assert options.stop_tokens == (3, 4)


@pytest.mark.parametrize("field", ["max_new_tokens", "n_samples", "seed", "first_prompt"])
def test_a_negative_count_is_refused(field):
    with pytest.raises(ConfigError, match=rf"{field}: -1 found"):
        decode(GenerateOptions, {field: -1})
