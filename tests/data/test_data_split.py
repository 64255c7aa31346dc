import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.data.config import DataConfig
from assay.data.corpus import Corpus
from assay.data.readers import PIECE_BYTES
from assay.data.split import decide_split, sides
from assay.errors import DataError

TEXTS = st.lists(st.text("abế\n", min_size=1, max_size=30), min_size=1, max_size=25)


def written(folder, texts):
    for number, text in enumerate(texts):
        (folder / f"{number:03}.txt").write_text(text, newline="", encoding="utf-8")
    return str(folder)


def divided(folder, **fields):
    config = DataConfig(text=(str(folder),), **fields)
    corpus = Corpus.open(config)
    split = decide_split(corpus, config)
    return split, [(side, document.text(), whole) for side, document, whole in sides(corpus, split)]


@given(texts=TEXTS.filter(lambda texts: len(set(texts)) > 1), fraction=st.floats(0.05, 0.5))
def test_a_split_by_document_never_cuts_a_document(tmp_path_factory, texts, fraction):
    folder = written(tmp_path_factory.mktemp("t"), texts)
    _, parts = divided(folder, split="document", val_fraction=fraction)
    assert [text for _, text, _ in parts] == texts
    sides_of = {text: {side for side, other, _ in parts if other == text} for text in texts}
    assert all(len(found) == 1 for found in sides_of.values())  # equal texts stay together
    assert {side for side, _, _ in parts} == {"train", "val"}


@given(texts=TEXTS.filter(lambda texts: len("".join(texts)) > 1), fraction=st.floats(0.05, 0.5))
def test_a_split_by_tail_holds_out_the_last_characters(tmp_path_factory, texts, fraction):
    folder = written(tmp_path_factory.mktemp("t"), texts)
    whole = "".join(texts)
    cut = int((1 - fraction) * len(whole))
    if cut == 0:
        return
    _, parts = divided(folder, split="tail", val_fraction=fraction)
    assert "".join(text for side, text, _ in parts if side == "train") == whole[:cut]
    assert "".join(text for side, text, _ in parts if side == "val") == whole[cut:]
    assert [len(text) for _, text, ends in parts if not ends] in ([], [_cut_head(texts, cut)])


def _cut_head(texts, cut):
    for text in texts:
        if cut < len(text):
            return cut
        cut -= len(text)
    return None


def test_a_cut_on_the_border_of_two_pieces_repeats_nothing(tmp_path):
    text = "ab" * PIECE_BYTES  # in ASCII, two pieces; half of it is the first
    _, parts = divided(written(tmp_path, [text]), val_fraction=0.5)
    assert [len(text) for _, text, _ in parts] == [PIECE_BYTES, PIECE_BYTES]


def test_the_choice_of_documents_does_not_depend_on_their_order_or_names(tmp_path):
    texts = [f"document {number} " * (number + 3) for number in range(30)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, one = divided(written(tmp_path / "a", texts))
    _, other = divided(written(tmp_path / "b", texts[::-1]))
    assert {t for side, t, _ in one if side == "val"} == {t for s, t, _ in other if s == "val"}


@given(sizes=st.lists(st.integers(1, 300), min_size=10, max_size=40), fraction=st.floats(0.1, 0.5))
def test_the_held_out_bytes_are_near_the_fraction(tmp_path_factory, sizes, fraction):
    texts = [f"{number:03}" + "x" * size for number, size in enumerate(sizes)]
    _, parts = divided(written(tmp_path_factory.mktemp("t"), texts), val_fraction=fraction)
    held = sum(len(text) for side, text, _ in parts if side == "val")
    total, smallest = sum(map(len, texts)), min(map(len, texts))
    assert held <= max(2 * fraction * total, smallest)


def test_one_huge_document_does_not_swallow_the_validation_side(tmp_path):
    texts = [f"{number} small" for number in range(20)] + ["huge " * 10_000]
    _, parts = divided(written(tmp_path, texts), val_fraction=0.1)
    assert next(side for side, text, _ in parts if text.startswith("huge")) == "train"
    assert "val" in {side for side, _, _ in parts}


@pytest.mark.parametrize(("count", "kind"), [(1, "tail"), (9, "tail"), (10, "document")])
def test_auto_splits_by_document_from_ten_documents_on(tmp_path, count, kind):
    split, _ = divided(written(tmp_path, [f"text {number}" for number in range(count)]))
    assert split.kind == kind


def test_a_split_that_leaves_a_side_empty_is_refused(tmp_path):
    with pytest.raises(DataError, match="one distinct document found in 2"):
        divided(written(tmp_path, ["same", "same"]), split="document")
    (tmp_path / "one").mkdir()
    with pytest.raises(DataError, match="1 character found; expected at least two"):
        divided(written(tmp_path / "one", ["x"]))
