"""How varied texts are, among themselves and each within itself.

A text is a list of tokens of any kind: ids, characters or words. "Texts" are samples drawn in the
same way, and every figure depends on how many there are and how long they are: compare only sets of
equal size. Each function says what it gives for texts too short to have an n-gram.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

Text = Sequence[Hashable]
_EPSILON = 0.1  # of smoothing method 1


def distinct(texts: Sequence[Text], n: int) -> float:
    """Return the n-grams that differ over all n-grams, of all texts together; NaN without any.

    Source: Li et al. 2016, arXiv:1510.03055, section 5.2.
    """
    total = sum(max(0, len(text) - n + 1) for text in texts)
    return unique_ngrams(texts, n) / total if total else math.nan


def unique_ngrams(texts: Sequence[Text], n: int = 4) -> int:
    """Return how many different n-grams the texts have together."""
    return len(set(chain.from_iterable(_ngrams(text, n) for text in texts)))


def repeated_ngrams(texts: Sequence[Text], n: int = 4) -> float:
    """Return rep-n: the share of a text's n-grams that stood in it before, mean over the texts.

    Texts without an n-gram are left out; NaN if all are.

    Source: Welleck et al. 2019, arXiv:1908.04319, seq-rep-n.
    """
    shares = [1 - distinct([text], n) for text in texts if len(text) >= n]
    return math.fsum(shares) / len(shares) if shares else math.nan


def ends_in_loop(
    text: Text, *, longest_period: int = 32, repeats: int = 3, least_length: int = 12
) -> bool:
    """Return whether the text ends in a cycle.

    Args:
        text: Of tokens.
        longest_period: Tokens of the longest cycle looked for.
        repeats: How often it must stand there, whole, the first time included.
        least_length: Tokens the cycles must cover together, or every "..." were a loop.
    """
    backwards = list(reversed(text))
    for period in range(1, min(longest_period, len(backwards) // repeats) + 1):
        length = max(repeats * period, least_length)
        end = backwards[:length]
        if len(end) == length and end[period:] == end[:-period]:
            return True
    return False


def loop_rate(
    texts: Sequence[Text], *, longest_period: int = 32, repeats: int = 3, least_length: int = 12
) -> float:
    """Return the share of texts that end in a loop, as `ends_in_loop` tells; NaN without texts."""
    found = [
        ends_in_loop(
            text, longest_period=longest_period, repeats=repeats, least_length=least_length
        )
        for text in texts
    ]
    return sum(found) / len(found) if found else math.nan


def zipf_exponent(texts: Sequence[Text]) -> float:
    """Return s of frequency ~ rank**-s, all texts together; NaN with fewer than two token types.

    Fitted by least squares of log frequency on log rank, every rank weighing the same, so that the
    many rare types decide; natural English words give about 1. Equal frequencies take successive
    ranks.

    Source: Holtzman et al. 2019, arXiv:1904.09751, section 5.1.
    """
    counts = sorted(Counter(chain.from_iterable(texts)).values(), reverse=True)
    if len(counts) < 2:
        return math.nan
    ranks = np.arange(1, len(counts) + 1)
    return -float(np.polyfit(np.log(ranks), np.log(counts), 1)[0])


def self_bleu(texts: Sequence[Text], n: int = 4) -> float:
    """Return the mean BLEU-n of each text against all the others: 1 where all are alike.

    Uniform weights over orders 1 to n. An order without a match counts as 0.1 matches (smoothing
    method 1), a text without one matching token as 0. NaN with fewer than two texts.

    Source: Zhu et al. 2018, arXiv:1802.01886, section 3.2; BLEU: Papineni et al. 2002,
    doi:10.3115/1073083.1073135; smoothing: Chen & Cherry 2014, doi:10.3115/v1/W14-3346, method 1.
    """
    if len(texts) < 2:
        return math.nan
    orders = [_Matches.of([Counter(_ngrams(text, k)) for text in texts]) for k in range(1, n + 1)]
    lengths = Counter(len(text) for text in texts)
    scores = [
        _brevity(len(text), lengths) * _mean_precision([order.precision(i) for order in orders])
        for i, text in enumerate(texts)
    ]
    return math.fsum(scores) / len(scores)


class _Precision(NamedTuple):
    matched: int
    total: int


class _Most(NamedTuple):
    """The highest count of an n-gram in any text, whose it is, and the highest elsewhere."""

    first: int
    owner: int
    second: int

    def elsewhere(self, text: int) -> int:
        """Return the highest count outside of a text."""
        return self.second if self.owner == text else self.first


class _Matches(NamedTuple):
    """The n-grams of one order: of each text, and the most in any."""

    counts: list[Counter[Text]]
    most: dict[Text, _Most]

    @classmethod
    def of(cls, counts: list[Counter[Text]]) -> "_Matches":
        most: dict[Text, _Most] = {}
        for i, counter in enumerate(counts):
            for ngram, count in counter.items():
                old = most.get(ngram, _Most(0, -1, 0))
                if count > old.first:
                    most[ngram] = _Most(count, i, old.first)
                else:
                    most[ngram] = old._replace(second=max(old.second, count))
        return cls(counts, most)

    def precision(self, text: int) -> _Precision:
        """Return how many n-grams of a text are in another, each as often as it is there."""
        counter = self.counts[text]
        matched = sum(
            min(count, self.most[ngram].elsewhere(text)) for ngram, count in counter.items()
        )
        return _Precision(matched, max(1, counter.total()))


def _mean_precision(precisions: list[_Precision]) -> float:
    if precisions[0].matched == 0:
        return 0.0
    logs = [math.log((matched or _EPSILON) / total) for matched, total in precisions]
    return math.exp(math.fsum(logs) / len(logs))


def _brevity(length: int, lengths: Counter[int]) -> float:
    """Return the penalty of a text shorter than the nearest, in length, of the others."""
    others = (other for other, n in lengths.items() if other != length or n > 1)
    nearest = min(others, key=lambda other: (abs(other - length), other))
    return 1.0 if length >= nearest else math.exp(1 - nearest / max(length, 1))


def _ngrams(text: Text, n: int) -> Iterator[tuple[Hashable, ...]]:
    return (tuple(text[i : i + n]) for i in range(len(text) - n + 1))
