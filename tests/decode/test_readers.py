import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shaken import VOCAB, small

from assay.decode.prompt_lookup import Lookup
from assay.errors import ConfigError
from assay.generate import GenerateOptions, generate
from assay.sampling import SamplingConfig

DRAWN, GREEDY = SamplingConfig(temperature=1.2), SamplingConfig(temperature=0.0)
PROMPTS = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5, 8], [3, 5]]
MODEL = small()
WINDOWED = small(mixer={"kind": "attention", "window": 4})
texts = st.lists(st.integers(0, 3), max_size=40)  # few kinds of token, so that they repeat
prompts = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30), min_size=1)


def run_of(model=MODEL, rows=PROMPTS, sampling=DRAWN, **options):
    options = GenerateOptions(**{"max_new_tokens": 20, "reader": "native", **options})
    run = generate(model, rows, sampling, options=options)
    return run, [(step, run.logits.clone()) for step in run]


@pytest.mark.parametrize("window", ["recompute", "rolling"])
def test_both_readers_draw_the_same(native, window):
    """Longer than the context; the rows are cropped one after another."""
    ours, steps = run_of(WINDOWED, window=window, n_samples=2)
    theirs, their_steps = run_of(WINDOWED, window=window, n_samples=2, reader="torch")
    assert ours.generated == theirs.generated
    for (_, found), (_, expected) in zip(steps, their_steps, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@settings(max_examples=15)
@given(rows=prompts, n=st.integers(1, 3), seed=st.integers(0, 5))
def test_a_row_alone_has_the_same_bits_as_in_company(native, rows, n, seed):
    together, steps = run_of(rows=rows, n_samples=n, seed=seed)
    for p, prompt in enumerate(rows):
        alone, own = run_of(rows=[prompt], n_samples=1, seed=seed, first_prompt=p)
        assert alone.generated[0] == together.generated[p * n]
        for (_, found), (_, expected) in zip(own, steps, strict=True):
            assert torch.equal(found[0], expected[p * n])


@settings(max_examples=5)
@given(rows=prompts, n=st.integers(1, 2), use_cache=st.booleans())
def test_with_pytorch_a_row_has_the_same_bits_in_company_where_it_is_to_be_exact(
    rows, n, use_cache
):
    options = {"reader": "torch", "exact": True, "use_cache": use_cache, "max_new_tokens": 4}
    together, steps = run_of(rows=rows, n_samples=n, **options)
    for p, prompt in enumerate(rows):
        alone, own = run_of(rows=[prompt], first_prompt=p, **options)
        assert alone.generated[0] == together.generated[p * n]
        for (_, found), (_, expected) in zip(own, steps, strict=True):
            assert torch.equal(found[0], expected[p * n])


@pytest.mark.slow
def test_with_pytorch_a_row_reads_the_same_side_by_side_and_apart_to_rounding():
    """The last bits differ, or the test above would say nothing."""
    rows = [[number % VOCAB, 5, 7] for number in range(11)]
    apart, _ = run_of(rows=rows, reader="torch", exact=True)
    beside, _ = run_of(rows=rows, reader="torch")
    torch.testing.assert_close(apart.logits, beside.logits, rtol=1e-4, atol=1e-4)
    assert not torch.equal(apart.logits, beside.logits)


@settings(max_examples=15)
@given(rows=prompts, lookup=st.integers(1, 9), penalty=st.sampled_from([1.0, 1.3]))
def test_drafts_change_neither_a_token_nor_a_bit(native, rows, lookup, penalty):
    sampling = SamplingConfig(temperature=0.3, repetition_penalty=penalty)
    plain, steps = run_of(rows=rows, sampling=sampling)
    drafted, own = run_of(rows=rows, sampling=sampling, lookup=lookup)
    assert drafted.generated == plain.generated
    for (token, found), (expected_token, expected) in zip(own, steps, strict=True):
        assert token == expected_token
        assert torch.equal(found, expected)


def test_drafts_that_come_true_save_passes(native):
    """A greedy model of a window of 1 and no position soon goes round in a circle."""
    alone = {"kind": "attention", "window": 1, "qk_norm": False}
    model = small(mixer=alone, position="none", max_seq_len=200)
    plain, _ = run_of(model, [[1]], GREEDY, max_new_tokens=150)
    drafted, _ = run_of(model, [[1]], GREEDY, max_new_tokens=150, lookup=8)
    assert drafted.generated == plain.generated
    assert plain.n_passes == 150
    assert drafted.n_passes < 60


def test_a_stop_token_inside_a_draft_ends_the_row_there(native):
    model = small(mixer={"kind": "attention", "window": 1}, position="none", max_seq_len=200)
    plain, _ = run_of(model, [[1]], GREEDY, max_new_tokens=60)
    for stop in set(plain.generated[0]):
        cut, _ = run_of(model, [[1]], GREEDY, max_new_tokens=60, lookup=8, stop_tokens=(stop,))
        assert cut.generated[0] == plain.generated[0][: plain.generated[0].index(stop) + 1]


def test_ended_rows_are_not_read_again(native):
    run = generate(MODEL, PROMPTS, DRAWN, options=GenerateOptions(reader="native"))
    next(run)
    read = []
    program = run._reader._program
    logits = program.logits
    program.logits = lambda feed: read.append(set(feed.rows)) or logits(feed)
    run.finish(1)
    run.finish(2)
    next(run)
    assert read == [{0, 3}]


@pytest.mark.parametrize("reader", ["native", "torch"])
def test_the_samples_of_a_prompt_read_it_once(native, reader):
    n_prompt = 10
    run, steps = run_of(rows=[list(range(n_prompt))], n_samples=5, reader=reader, sampling=GREEDY)
    alone, own = run_of(rows=[list(range(n_prompt))], reader=reader, sampling=GREEDY)
    assert run.generated == alone.generated * 5
    torch.testing.assert_close(steps[3][1], own[3][1].expand(5, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_rolling_row_takes_no_more_room_than_its_window_and_a_pass(native):
    run, _ = run_of(WINDOWED, window="rolling", max_new_tokens=1)
    longer, _ = run_of(WINDOWED, window="rolling", max_new_tokens=1000)
    # 2 layers, keys and values, 4 rows, 32 channels of 4 bytes; 3 of the window, 256 of a pass
    assert longer.cache_bytes == 2 * 2 * 4 * 32 * 4 * (3 + 256)
    assert run.cache_bytes < longer.cache_bytes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"use_cache": False, "lookup": 3}, "generate.lookup: 3 found, but drafts.*use_cache"),
        ({"reader": "torch", "lookup": 3}, "lookup: 3 found.*generate.reader=torch"),
        ({"use_cache": False, "reader": "native"}, "generate.reader: native found.*use_cache"),
    ],
)  # fmt: skip
def test_what_needs_the_kernels_is_refused_where_they_are_not_used(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        generate(MODEL, PROMPTS, DRAWN, options=GenerateOptions(**options))


def test_a_model_in_float64_is_read_by_pytorch_and_drafts_are_refused():
    with pytest.raises(ConfigError, match="weights in float64 on cpu"):
        generate(small().double(), PROMPTS, DRAWN, options=GenerateOptions(lookup=2))


# --- drafts


@given(text=texts, limit=st.integers(0, 6), step=st.integers(1, 5))
def test_a_draft_is_what_followed_the_latest_place_that_looks_alike(text, limit, step):
    lookup = Lookup()
    for end in range(1, len(text), step):
        lookup.draft(text[:end], limit)
    found = lookup.draft(text, limit)
    expected = []
    for length in (4, 3, 2):
        places = [
            at
            for at in range(length, len(text))
            if len(text) >= length and text[at - length : at] == text[-length:]
        ]
        if places:
            expected = text[places[-1] :][:limit]
            break
    assert found == expected


def test_a_draft_does_not_come_from_the_end_itself():
    assert Lookup().draft([1, 2, 3], 4) == []
    assert Lookup().draft([1, 2, 3, 1, 2], 2) == [3, 1]
