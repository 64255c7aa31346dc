import math
from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import ConfigError, DataError
from assay.measure.ngram import NGramModel

V = 4
IDS = st.lists(st.integers(0, V - 1), min_size=3, max_size=60)


class Slow:
    """Interpolated Kneser-Ney from its definition, with dictionaries."""

    def __init__(self, ids, order, vocab_size=V):
        self.order, self.vocab_size = order, vocab_size
        self.counts = [Counter() for _ in range(order + 1)]
        for i in range(len(ids) - order + 1):
            self.counts[order][tuple(ids[i : i + order])] += 1
        for k in range(order - 1, 0, -1):
            before = defaultdict(set)
            for gram in self.counts[k + 1]:
                before[gram[1:]].add(gram[0])
            self.counts[k] = Counter({gram: len(tokens) for gram, tokens in before.items()})

    def discount(self, k):
        of = Counter(self.counts[k].values())
        return (of[1] + 0.5) / (of[1] + 2 * of[2] + 1)

    def p(self, word, context):
        context = tuple(context)[-(self.order - 1) :] if self.order > 1 else ()
        if not context:
            return self.level(word, (), 1 / self.vocab_size)
        return self.level(word, context, self.p_shorter(word, context[1:]))

    def p_shorter(self, word, context):
        lower = self.p_shorter(word, context[1:]) if context else 1 / self.vocab_size
        return self.level(word, context, lower)

    def level(self, word, context, lower):
        k = len(context) + 1
        after = {g[-1]: c for g, c in self.counts[k].items() if g[:-1] == context}
        total = sum(after.values())
        if not total:
            return lower
        d = self.discount(k)
        return (max(after.get(word, 0) - d, 0) + d * len(after) * lower) / total


@pytest.mark.slow
@given(IDS, st.integers(1, 3))
def test_every_probability_against_the_definition(ids, order):
    model, slow = NGramModel.fit(np.array(ids), vocab_size=V, order=order), Slow(ids, order)
    for length in range(order + 1):
        for context in product(range(V), repeat=length):
            found = model.next_probability(np.array(context, np.int64))
            expected = [slow.p(word, context) for word in range(V)]
            assert found == pytest.approx(expected, rel=1e-12)


@given(IDS, IDS, st.integers(1, 3))
def test_a_text_has_the_product_of_its_tokens(ids, text, order):
    model = NGramModel.fit(np.array(ids), vocab_size=V, order=order)
    expected = [
        math.log2(model.next_probability(np.array(text[:i], np.int64))[token])
        for i, token in enumerate(text)
    ]
    assert model.log2_probability(np.array(text)) == pytest.approx(expected, abs=1e-12)


@given(IDS, st.lists(st.integers(0, V - 1), max_size=5), st.integers(1, 3))
def test_probabilities_are_positive_and_sum_to_one(ids, context, order):
    model = NGramModel.fit(np.array(ids), vocab_size=V, order=order)
    p = model.next_probability(np.array(context, np.int64))
    assert p.min() > 0
    assert p.sum() == pytest.approx(1, abs=1e-12)


def test_unigrams_by_hand():
    """a a a b: counts 3 and 1, n1 = 1, n2 = 0, so D = 1.5 / 2 and 1.5 are left for 4 tokens."""
    model = NGramModel.fit(np.array([0, 0, 0, 1]), vocab_size=V, order=1)
    left = 2 * 0.75 / 4
    expected = [(2.25 + left) / 4, (0.25 + left) / 4, left / 4, left / 4]
    assert model.next_probability(np.array([], np.int64)) == pytest.approx(expected)


def test_francisco_is_frequent_but_follows_one_word_only():
    """Kneser & Ney's point: after a new word, what has followed many words is the likelier."""
    francisco, glass = 1, 2
    ids = np.array([0, francisco] * 20 + [3, glass, 4, glass, 5, glass])
    model = NGramModel.fit(ids, vocab_size=7, order=2)
    after_the_unseen = model.next_probability(np.array([6]))
    assert after_the_unseen[glass] > after_the_unseen[francisco]
    assert model.next_probability(np.array([0]))[francisco] > 0.9


def test_a_cycle_is_learned_and_a_longer_order_knows_more():
    ids = np.tile([0, 1, 0, 2, 0, 3], 200)
    bits = [
        -NGramModel.fit(ids, vocab_size=V, order=k).log2_probability(ids[:60]).mean()
        for k in (1, 2, 3)
    ]
    assert bits[0] > bits[1] > bits[2]
    assert bits[2] < 0.2


def test_a_memoryless_text_costs_its_entropy():
    """A fresh text of 20,000 tokens: the standard error is some 1 / sqrt(20,000) = 0.007 bits."""
    rng = np.random.default_rng(0)
    p = np.array([0.5, 0.25, 0.125, 0.125])
    model = NGramModel.fit(rng.choice(V, 100_000, p=p), vocab_size=V, order=3)
    assert -model.log2_probability(rng.choice(V, 20_000, p=p)).mean() == pytest.approx(
        1.75, abs=0.03
    )


def test_the_largest_order_that_has_numbers_is_allowed():
    ids = np.full(20, 255, np.uint8)
    assert NGramModel.fit(ids, vocab_size=256, order=7).next_probability(ids)[255] > 0.9
    with pytest.raises(ConfigError, match="order: 8 found for a vocabulary of 256"):
        NGramModel.fit(ids, vocab_size=256, order=8)


def test_texts_it_cannot_read_get_a_sentence():
    with pytest.raises(DataError, match="2 tokens found; expected at least 3"):
        NGramModel.fit(np.array([0, 1]), vocab_size=V, order=3)
    model = NGramModel.fit(np.array([0, 1, 2]), vocab_size=V, order=2)
    with pytest.raises(DataError, match="ids from 1 to 4 found; expected 0 to 3"):
        model.log2_probability(np.array([1, 4]))
    with pytest.raises(DataError, match="0 tokens found"):
        model.log2_probability(np.array([], np.int64))
