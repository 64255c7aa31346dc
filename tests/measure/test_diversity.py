import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.measure.diversity import (
    distinct,
    ends_in_loop,
    loop_rate,
    repeated_ngrams,
    self_bleu,
    unique_ngrams,
    zipf_exponent,
)

TEXTS = st.lists(st.text("abc", min_size=0, max_size=12), min_size=2, max_size=6)
# the example of Papineni et al. 2002, in the spelling of NLTK's documentation
GUIDE, *REFERENCES = [
    "It is a guide to action which ensures that the military always obeys the commands of the "
    "party",
    "It is a guide to action that ensures that the military will forever heed Party commands",
    "It is the guiding principle which guarantees the military forces always being under the "
    "command of the Party",
    "It is the practical guide for the army always to heed the directions of the party",
]


def grams(text, n):
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def matches(text, references, n):
    """Modified precision as the paper words it: numerator and denominator."""
    counts = grams(text, n)
    most = {g: max(grams(r, n)[g] for r in references) for g in counts}
    return sum(min(counts[g], most[g]) for g in counts), max(1, sum(counts.values()))


def bleu(text, references, n=4):
    found = [matches(text, references, k) for k in range(1, n + 1)]
    if found[0][0] == 0:
        return 0.0
    mean = math.prod((hit or 0.1) / total for hit, total in found) ** (1 / n)
    nearest = min((abs(len(r) - len(text)), len(r)) for r in references)[1]
    return mean * (1 if len(text) > nearest else math.exp(1 - nearest / len(text)))


def test_the_slow_definition_gives_the_published_figures():
    """Papineni's modified precisions 17/18, 10/17 and 2/7, and NLTK's documented BLEU."""
    references = [r.split() for r in REFERENCES]
    lower = [r.lower().split() for r in REFERENCES]
    text = GUIDE.lower().split()
    assert matches(text, lower, 1) == (17, 18)
    assert matches(text, lower, 2) == (10, 17)
    cats = [text.split() for text in ("the cat is on the mat", "there is a cat on the mat")]
    assert matches(["the"] * 7, cats, 1) == (2, 7)
    assert bleu(GUIDE.split(), references) == pytest.approx(0.5045666840058485, rel=1e-12)


@given(TEXTS, st.integers(1, 4))
def test_self_bleu_is_the_mean_of_the_slow_definition(texts, n):
    slow = [bleu(text, texts[:i] + texts[i + 1 :], n) for i, text in enumerate(texts)]
    assert self_bleu(texts, n) == pytest.approx(np.mean(slow), rel=1e-12, abs=1e-15)


def test_self_bleu_of_the_published_texts():
    texts = [text.split() for text in (GUIDE, *REFERENCES)]
    slow = [bleu(text, texts[:i] + texts[i + 1 :]) for i, text in enumerate(texts)]
    assert slow[0] == pytest.approx(0.5045666840058485, rel=1e-12)
    assert self_bleu(texts) == pytest.approx(np.mean(slow), rel=1e-12)


def test_self_bleu_is_one_for_copies_and_zero_for_strangers():
    assert self_bleu(["to be or not"] * 3) == pytest.approx(1)
    assert self_bleu(["abcd", "efgh", "ijkl"]) == 0


@given(TEXTS, st.integers(1, 5))
def test_distinct_and_unique_by_sets(texts, n):
    every = [text[i : i + n] for text in texts for i in range(len(text)) if i + n <= len(text)]
    assert unique_ngrams(texts, n) == len(set(every))
    if every:
        assert distinct(texts, n) == pytest.approx(len(set(every)) / len(every))
    else:
        assert math.isnan(distinct(texts, n))


def test_distinct_counts_over_all_texts_together():
    assert distinct([[1, 2, 1], [2, 1, 3]], 2) == 3 / 4  # 12 21 | 21 13


def test_repetition_is_counted_within_a_text_only():
    assert repeated_ngrams(["abcdefgh", "abcdefgh"], 4) == 0
    assert repeated_ngrams(["aaaaaaaa"], 4) == 4 / 5  # five 4-grams, one of them new
    assert repeated_ngrams(["aaaaaaaa", "abcdefgh", "abc"], 4) == 2 / 5  # the short one is out
    assert math.isnan(repeated_ngrams(["abc"], 4))


@given(
    st.text("ab", max_size=20), st.integers(1, 5), st.integers(2, 4), st.integers(1, 12)
)  # two letters, so that loops are frequent
def test_a_loop_is_a_tail_that_a_cycle_spells(text, longest, repeats, least):
    def spelled(period):
        length = max(repeats * period, least)
        cycle = text[len(text) - period :]
        return length <= len(text) and (cycle * length)[-length:] == text[-length:]

    expected = any(spelled(p) for p in range(1, longest + 1) if p * repeats <= len(text))
    found = ends_in_loop(text, longest_period=longest, repeats=repeats, least_length=least)
    assert found == expected


def test_loops_by_hand():
    assert ends_in_loop("he said the sea, the sea, the sea, ")
    assert not ends_in_loop("the sea, the sea, the sea, and so on")  # it does not end so
    assert not ends_in_loop("the king is dead...")  # a cycle of three characters in all
    assert ends_in_loop("the king is dead............")
    assert not ends_in_loop("the sea, the sea, ")  # twice
    assert not ends_in_loop("abcd" * 3, longest_period=3)
    assert loop_rate(["abcd" * 3, "abcdefghijklm"]) == 0.5
    assert math.isnan(loop_rate([]))


@pytest.mark.parametrize("s", [0.5, 1.0, 1.5])
def test_the_exponent_of_an_exact_power_law_comes_out(s):
    """Counts rounded to whole numbers of 400 and more: logarithms off by 1/800 at most."""
    counts = [round(400 * (30 / rank) ** s) for rank in range(1, 31)]
    text = [rank for rank, count in enumerate(counts) for _ in range(count)]
    assert zipf_exponent([text[:500], text[500:]]) == pytest.approx(s, abs=2e-3)


def test_a_flat_text_has_exponent_zero_and_one_word_has_none():
    assert zipf_exponent(["abcd", "dcba"]) == pytest.approx(0, abs=1e-12)
    assert math.isnan(zipf_exponent(["aaaa"]))


def test_too_few_texts_to_compare_give_no_number():
    assert math.isnan(self_bleu(["abcd"]))
