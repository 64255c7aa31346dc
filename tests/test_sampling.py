import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from assay.errors import ConfigError, DivergedError
from assay.sampling import (
    ADAPTS,
    SamplingConfig,
    distribution,
    entropy_nats,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise,
    sample,
    uniforms,
)
from assay.sampling.draw import invert
from assay.sampling.filters import TopNSigmaConfig
from assay.sampling.temperature import DynatempConfig, EDTConfig, EntropyConfig
from assay.schema import config_hash, decode, override

GOLDEN = [0.011546754286331562, 0.24154919656271812, 0.11142585551493822]
NO_IDS = torch.zeros(1, 1, dtype=torch.long)
rows = st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=30).map(
    lambda values: torch.tensor([values], dtype=torch.float64)
)
# Whole numbers: ties are common, and no sum comes within rounding of a threshold by chance.
tied_rows = st.lists(st.integers(-4, 4), min_size=2, max_size=30).map(
    lambda values: torch.tensor([values], dtype=torch.float64)
)


def kept(logits):
    return set(logits[0].isfinite().nonzero().flatten().tolist())


def some_logits(n_rows=50, vocab_size=40):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n_rows, vocab_size, generator=generator, dtype=torch.float64) * 3


def first_uniforms(n, seed=0):
    numbers = itertools.islice(uniforms(seed, prompt=0, sample=0), n)
    return torch.tensor(list(numbers), dtype=torch.float64)


# --- the filters


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda z: keep_top_k(z, 7), TopKLogitsWarper(7)),
        (lambda z: keep_top_k(z, 100), TopKLogitsWarper(100)),
        (lambda z: keep_top_p(z, 0.8), TopPLogitsWarper(0.8)),
        (lambda z: keep_top_p(z, 1e-6), TopPLogitsWarper(1e-6)),
        (lambda z: keep_min_p(z, 0.05), MinPLogitsWarper(0.05)),
        (lambda z: keep_min_p(z, 1.0), MinPLogitsWarper(1.0)),
    ],
)
def test_a_filter_keeps_what_hugging_face_keeps(ours, theirs):
    logits = some_logits()
    assert torch.equal(ours(logits), theirs(NO_IDS, logits))


@pytest.mark.parametrize("penalty", [1.3, 0.7])
def test_the_penalty_is_that_of_hugging_face_once_padding_is_left_out(penalty):
    logits = some_logits(2)
    padded = torch.tensor([[-1, -1, 5, 0], [39, 39, 7, 7]])
    expected = RepetitionPenaltyLogitsProcessor(penalty)
    assert torch.equal(
        penalise(logits, padded, penalty),
        torch.cat((expected(torch.tensor([[5, 0]]), logits[:1]), expected(padded[1:], logits[1:]))),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.6, "top_k": 12, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.3},
        {"temperature": 1.7, "top_k": 30, "top_p": 0.7},
        {"temperature": 1.5, "top_p": 0.95, "min_p": 0.1},
        {"temperature": 0.4, "repetition_penalty": 2.0, "top_k": 5},
    ],
)
def test_the_whole_chain_is_that_of_hugging_face(settings):
    logits = some_logits()
    history = torch.arange(150).view(50, 3) % 40
    theirs = {  # in the order of GenerationMixin._get_logits_processor
        "repetition_penalty": RepetitionPenaltyLogitsProcessor,
        "temperature": TemperatureLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
    }
    chain = LogitsProcessorList(
        make(settings[name]) for name, make in theirs.items() if name in settings
    )
    expected = chain(history, logits.clone()).softmax(-1)
    found = distribution(logits, SamplingConfig(**settings), history)
    assert torch.equal(found > 0, expected > 0)
    # float64: some 40 roundings of 1e-16 each, relative to at most 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@given(logits=tied_rows, p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_fewest_tokens_that_reach_p(logits, p):
    probability = logits.softmax(-1)[0]
    nucleus = kept(keep_top_p(logits, p))
    mass = sorted((probability[i].item() for i in nucleus), reverse=True)
    assert sum(mass) >= p - 1e-12
    assert sum(mass[:-1]) < p + 1e-12
    left_out = [probability[i].item() for i in range(len(probability)) if i not in nucleus]
    assert max(left_out, default=0) <= mass[-1]


@pytest.mark.parametrize(
    ("p", "expected"), [(1.5 / 64, {0, 1}), (2 / 64, {0, 1}), (2.1 / 64, {0, 1, 2})]
)
def test_top_p_stops_where_p_is_reached_and_takes_the_lowest_ids_among_equals(p, expected):
    assert kept(keep_top_p(torch.zeros(1, 64, dtype=torch.float64), p)) == expected


@given(logits=tied_rows, k=st.integers(1, 40))
def test_top_k_keeps_every_token_fewer_than_k_tokens_beat(logits, k):
    values = logits[0].tolist()
    expected = {i for i, v in enumerate(values) if sum(w > v for w in values) < k}
    assert kept(keep_top_k(logits, k)) == expected


@given(logits=rows, p=st.floats(1e-6, 1))
def test_min_p_keeps_tokens_at_least_p_times_as_likely_as_the_likeliest(logits, p):
    ratio = (logits - logits.max()).exp()[0]
    survivors = kept(keep_min_p(logits, p))
    for i, r in enumerate(ratio.tolist()):
        if abs(r / p - 1) > 1e-12:  # nearer than that, rounding decides
            assert (i in survivors) == (r >= p)


# --- the temperature


@pytest.mark.parametrize("kind", ADAPTS, ids=lambda kind: kind.__name__)
@given(logits=rows.filter(lambda z: z.shape[1] > 8))
def test_every_rule_gives_a_temperature_at_which_a_softmax_exists(kind, logits):
    temperature = kind().temperature(logits, 1.0)
    assert temperature.shape == (1, 1)
    assert temperature > 0
    assert distribution(logits, SamplingConfig(adapt=kind())).sum().item() == pytest.approx(1)


@given(logits=rows, theta=st.floats(1e-3, 100), base=st.floats(0.01, 0.99))
def test_edt_only_cools_and_stops_at_its_floor(logits, theta, base):
    temperature = EDTConfig(theta=theta, base=base).temperature(logits, 0.9)
    assert 1e-3 <= temperature <= 0.9


def test_edt_of_a_uniform_row_by_hand():
    temperature = EDTConfig(theta=1.5).temperature(torch.zeros(1, 8).double(), 0.7)
    assert temperature.item() == pytest.approx(0.7 * 0.8 ** (1.5 / math.log(8)), rel=1e-14)


@pytest.mark.parametrize("gap", [40.0, 1e4, 1e300])
def test_edt_of_a_sure_row_is_its_floor_and_not_zero(gap):
    logits = torch.tensor([[0.0, -gap]], dtype=torch.float64)
    assert EDTConfig(floor=0.01).temperature(logits, 1.0).item() == 0.01
    assert distribution(logits, SamplingConfig(adapt=EDTConfig()))[0].tolist() == [1.0, 0.0]


def test_a_vocabulary_of_one_token_has_a_temperature_too():
    one = torch.zeros(1, 1).double()
    assert EDTConfig().temperature(one, 1.0).item() == 1e-3
    assert DynatempConfig().temperature(one, 1.0).item() == 0.5


@given(logits=rows, target=st.floats(0.01, 3))
def test_the_entropy_target_is_reached_wherever_a_temperature_reaches_it(logits, target):
    rule = EntropyConfig(target_nats=target, floor=0.05, ceiling=20.0)
    if target >= math.log(logits.shape[1]):
        with pytest.raises(ConfigError, match="target_nats"):
            rule.temperature(logits, 1.0)
        return
    temperature = rule.temperature(logits, 1.0)
    found, at_floor, at_ceiling = (
        entropy_nats(logits / t).item() for t in (temperature, rule.floor, rule.ceiling)
    )
    if at_floor >= target:
        assert temperature.item() == pytest.approx(rule.floor, rel=1e-11)
    elif at_ceiling <= target:
        assert temperature.item() == pytest.approx(rule.ceiling, rel=1e-11)
    else:  # dH/dlnT is the variance of the logits over T, under (100 / 0.05)² / 4; lnT is 1e-15 off
        assert found == pytest.approx(target, abs=1e-8)


def test_each_row_has_its_own_temperature():
    logits = some_logits(4) * torch.tensor([0.5, 1.0, 2.0, 4.0])[:, None]
    for kind in ADAPTS:
        alone = torch.cat([kind().temperature(row[None], 1.0) for row in logits])
        assert torch.equal(kind().temperature(logits, 1.0), alone)


def test_dynatemp_follows_the_formula_of_llama_cpp():
    p = [0.7, 0.2, 0.1]
    share = -sum(x * math.log(x) for x in p) / math.log(3)
    rule = DynatempConfig(low=0.3, high=2.0, exponent=1.7)
    found = rule.temperature(torch.tensor([p], dtype=torch.float64).log(), 1.0).item()
    assert found == pytest.approx(0.3 + 1.7 * share**1.7, rel=1e-14)


def test_dynatemp_ends_at_its_bounds():
    logits = torch.tensor([[0.0, 0.0, 0.0], [1e5, 0.0, 0.0]], dtype=torch.float64)
    found = DynatempConfig().temperature(logits, 1.0).flatten().tolist()
    assert found == pytest.approx([1.5, 0.5], rel=1e-14)


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e300])
def test_no_temperature_overflows(temperature):
    logits = torch.tensor([[3e38, -3e38, 0.0], [1.0, 2.0, 3.0]])
    probability = distribution(logits, SamplingConfig(temperature=temperature))
    assert probability.sum(-1).tolist() == pytest.approx([1, 1])


# --- the distribution


@given(logits=tied_rows)
def test_greedy_is_the_lowest_of_the_likeliest_ids(logits):
    values = logits[0].tolist()
    for u in (0.0, 0.5, 1 - 2**-53):
        drawn = sample(
            logits, SamplingConfig(temperature=0.0), torch.tensor([u], dtype=torch.float64)
        )
        assert drawn.tolist() == [values.index(max(values))]


@pytest.mark.parametrize("kind", ADAPTS, ids=lambda kind: kind.__name__)
@given(logits=tied_rows.filter(lambda z: z.shape[1] > 8), shift=st.integers(-64, 64))
def test_adding_a_constant_to_the_logits_changes_nothing(kind, logits, shift):
    config = SamplingConfig(adapt=kind(), top_k=5, min_p=0.01)
    assert torch.equal(distribution(logits, config), distribution(logits + shift, config))


@given(order=st.permutations(range(12)))
def test_renaming_the_tokens_renames_the_probabilities(order):
    logits = some_logits(3, 12)
    config = SamplingConfig(temperature=0.8, top_k=9, top_p=0.9, min_p=0.01)
    found = distribution(logits[:, order], config)
    # Sums run in another order, so the last bits may differ.
    torch.testing.assert_close(found, distribution(logits, config)[:, order], rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_logits_are_widened_before_anything_is_done_to_them(dtype):
    logits = some_logits().to(dtype)
    config = SamplingConfig(temperature=0.7, top_p=0.8)
    assert torch.equal(distribution(logits, config), distribution(logits.double(), config))


# --- the draw


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.8}, {"top_k": 3}, {"adapt": "dynatemp"}])
def test_draws_follow_the_distribution(settings):
    n, config = 20_000, decode(SamplingConfig, settings)
    logits = torch.tensor([[0.5, -1.0, 2.0, 0.0, 1.0, -3.0]])
    p = distribution(logits, config)[0]
    drawn = sample(logits.expand(n, 6), config, first_uniforms(n)).bincount(minlength=6)
    assert (drawn[p == 0] == 0).all()
    chi2 = ((drawn - n * p)[p > 0] ** 2 / (n * p[p > 0])).sum().item()
    assert chi2 < 20.5  # at most 5 degrees of freedom: probability under 0.001


@pytest.mark.parametrize("u", [0.0, 2**-60, 0.5, 1 - 2**-24, 1 - 2**-53, 1.0])
def test_a_token_of_probability_zero_is_never_drawn(u):
    logits = torch.full((1, 9), -1e6)
    logits[0, [2, 3, 6]] = torch.tensor([0.1, 0.2, -0.3])  # zeros before, between and after
    config = SamplingConfig(temperature=0.1)
    drawn = sample(logits, config, torch.tensor([u], dtype=torch.float64)).item()
    assert distribution(logits, config)[0, drawn] > 0


@given(logits=rows, u=st.floats(0, 1, exclude_max=True))
def test_the_drawn_token_is_where_the_cumulative_probability_passes_the_number(logits, u):
    p = distribution(logits, SamplingConfig())[0].tolist()
    drawn = sample(logits, SamplingConfig(), torch.tensor([u], dtype=torch.float64)).item()
    assert p[drawn] > 0
    assert math.fsum(p[:drawn]) <= u + 1e-14
    assert math.fsum(p[: drawn + 1]) >= u - 1e-14


def test_a_scan_rounded_on_many_threads_still_draws_no_impossible_token():
    cumulative = torch.tensor([[0.5, 0.5 + 2**-53, 0.5, 0.5 - 2**-54, 1.0]], dtype=torch.float64)
    possible = torch.tensor([[True, False, False, True, True]])
    for u, expected in ((0.5 - 2**-54, 0), (0.5, 4), (0.5 + 2**-53, 4)):
        assert invert(cumulative, possible, torch.tensor([u], dtype=torch.float64)) == expected


def test_each_row_has_its_own_number_and_one_on_a_border_belongs_to_the_later_token():
    uniform = torch.tensor([0.0, 0.25, 0.5, 0.75])
    assert sample(torch.zeros(4, 4), SamplingConfig(), uniform).tolist() == [0, 1, 2, 3]


def test_the_global_generators_are_left_alone():
    before = torch.get_rng_state()
    sample(torch.zeros(4, 8), SamplingConfig(), first_uniforms(4))
    assert torch.equal(torch.get_rng_state(), before)


def philox4x64(counter, key):
    """Salmon et al. 2011, section 3.3, written out: ten rounds on four words of 64 bits."""
    mask, (a, b, c, d), (k0, k1) = 2**64 - 1, counter, key
    for _ in range(10):
        x, y = a * 0xD2E7470EE14C6C93, c * 0xCA5A826395121157
        a, b, c, d = (y >> 64) ^ b ^ k0, y & mask, (x >> 64) ^ d ^ k1, x & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return a, b, c, d


def test_the_numbers_are_philox_of_seed_prompt_sample_and_step():
    blocks = [philox4x64((block, 5, 3, 0), (1234, 0)) for block in (1, 2)]
    expected = [(word >> 11) / 2**53 for block in blocks for word in block]
    assert list(itertools.islice(uniforms(1234, prompt=3, sample=5), 8)) == expected


def test_the_first_numbers_of_seed_zero_stay_what_they_are():
    assert list(itertools.islice(uniforms(0, prompt=0, sample=0), 3)) == GOLDEN


def test_no_two_streams_share_a_number():
    streams = [
        tuple(itertools.islice(uniforms(seed, prompt=p, sample=s), 50))
        for seed, p, s in itertools.product(range(3), repeat=3)
    ]
    assert len({number for stream in streams for number in stream}) == 27 * 50


# --- what is refused


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"temperature": -1.0}, r"temperature: -1.0 found; input should be greater than or equal"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_p": 0.0}, r"top_p: 0.0 found"),
        ({"min_p": 1.5}, r"min_p: 1.5 found"),
        ({"top_k": -1}, r"top_k: -1 found"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty: 0.0 found"),
        ({"temperature": 0, "top_k": 5}, r"top_k: 5 found with temperature 0"),
        ({"temperature": 0, "top_p": 0.9}, r"top_p: 0.9 found with temperature 0"),
        ({"temperature": 0, "min_p": 0.1}, r"min_p: 0.1 found with temperature 0"),
        ({"temperature": 0, "adapt": "edt"}, r"adapt: edt found with temperature 0"),
        ({"temperature": 0.7, "adapt": "entropy"}, r"temperature: 0.7 found with adapt=entropy"),
        ({"temperature": 0.7, "adapt": "dynatemp"}, r"temperature: 0.7 found with adapt=dynatemp"),
        ({"temperature": 1e-4, "adapt": "edt"}, r"adapt.floor: 0.001 found; expected at most"),
        ({"adapt": {"kind": "dynatemp", "low": 2.0}}, r"low: 2.0 found; expected less than high"),
        ({"adapt": {"kind": "entropy", "floor": 2.0}}, r"floor: 2.0 found; expected less than"),
        ({"adapt": "edr"}, r"Did you mean 'edt'"),
    ],
)
def test_a_setting_out_of_range_or_without_effect_is_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        decode(SamplingConfig, settings)


def test_a_field_of_a_rule_is_reached_by_its_dotted_name():
    config = override(SamplingConfig(), {"adapt": "edt", "adapt.theta": 2.0})
    assert config.adapt == EDTConfig(theta=2.0)


def test_greedy_still_takes_a_repetition_penalty():
    config = SamplingConfig(temperature=0.0, repetition_penalty=2.0)
    logits = torch.tensor([[3.0, 2.0]])
    assert sample(logits, config, torch.zeros(1), torch.tensor([[0]])).tolist() == [1]


def test_a_penalty_without_a_history_is_refused():
    with pytest.raises(ConfigError, match=r"repetition_penalty: 1.5 found without the tokens"):
        distribution(torch.zeros(1, 4), SamplingConfig(repetition_penalty=1.5))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused_with_their_place(value):
    logits = torch.zeros(3, 5)
    logits[1, 4] = value
    with pytest.raises(DivergedError, match=rf"{value} found for token 4 in row 1"):
        sample(logits, SamplingConfig(temperature=0.0), torch.zeros(3))


# --- a filter before the others


@given(tied_rows, st.floats(0.01, 4))
def test_top_n_sigma_keeps_what_is_within_n_deviations_of_the_largest(logits, n):
    row = logits[0].tolist()
    mean = math.fsum(row) / len(row)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in row) / len(row))
    away = [(max(row) - value) - n * deviation for value in row]
    certain = [i for i, value in enumerate(away) if abs(value) > 1e-9]  # rounding of a threshold
    found = kept(TopNSigmaConfig(n=n).keep(logits))
    assert found & set(certain) == {i for i in certain if away[i] < 0}
    assert row.index(max(row)) in found


@given(tied_rows, st.floats(0.1, 10))
def test_top_n_sigma_keeps_the_same_tokens_at_every_temperature(logits, temperature):
    settings = SamplingConfig(filter=TopNSigmaConfig(n=0.7))  # no whole number's root is near
    warm = settings.model_copy(update={"temperature": temperature})
    assert kept(distribution(logits, settings).log()) == kept(distribution(logits, warm).log())


def test_a_filter_sees_all_tokens_also_where_top_k_would_do_alone():
    logits, uniform = some_logits(), first_uniforms(50)
    settings = SamplingConfig(top_k=3, filter=TopNSigmaConfig(n=0.2))
    slow = distribution(logits, settings)
    assert ((slow > 0).sum(-1) < 3).any()
    drawn = sample(logits, settings, uniform)
    assert (slow.gather(1, drawn[:, None]) > 0).all()


def test_a_filter_without_effect_is_refused():
    with pytest.raises(ConfigError, match="filter: top_n_sigma found with temperature 0"):
        decode(SamplingConfig, {"temperature": 0.0, "filter": "top_n_sigma"})


def test_a_config_without_a_filter_is_written_and_named_as_before_there_were_any():
    assert "filter" not in SamplingConfig().model_dump()
    assert "filter" not in json.loads(SamplingConfig(top_k=3).model_dump_json())
    settings = SamplingConfig(filter=TopNSigmaConfig(n=2.0))
    assert decode(SamplingConfig, settings.model_dump()) == settings
    assert config_hash(settings) != config_hash(SamplingConfig())
