from assay.data.config import DataConfig
from assay.data.corpus import Corpus


def works(name):
    return [document.text() for document in Corpus.open(DataConfig(text=(name,))).documents()]


def test_the_halves_are_whole_works_and_share_none():
    first, second, both = works("shakespeare-1"), works("shakespeare-2"), works("shakespeare")
    assert (len(first), len(second)) == (21, 21)
    assert not set(first) & set(second)
    assert [work for pair in zip(first, second, strict=True) for work in pair] == both


def test_the_halves_are_pinned():
    hashes = {
        name: Corpus.open(DataConfig(text=(name,))).sha256[:16]
        for name in ("shakespeare-1", "shakespeare-2")
    }
    assert hashes == {"shakespeare-1": "c3598778ccf88cc0", "shakespeare-2": "a436fb4adae0f00e"}
