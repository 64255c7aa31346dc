import hashlib
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from assay.data.bytelevel import BYTE_OF, cut_at_spaces
from assay.data.subword import SubwordTokenizer, read_tokenizer, train_bpe
from assay.data.tokenizer import ByteTokenizer, CharTokenizer, TextStream, load_tokenizer
from assay.errors import DataError

SAMPLE = "Trăm năm trong cõi người ta, it's the 42 words!\n\n  if x:\n\treturn 'don't'\n" * 30
SAMPLE += "    a\n\n\nb        c\t\t\n" * 30  # so that runs of white space become tokens
TEXT = st.text(st.characters(codec="utf-8"))
BPE = train_bpe(iter([SAMPLE]), vocab_size=400)
LOSSLESS = [CharTokenizer(SAMPLE, end_of_text=True), ByteTokenizer(), BPE]
SPACES = " \n\r\t\u00a0\u0085\u3000\u2028\u200b\x1c\x0b"
AWKWARD = st.lists(
    st.sampled_from([*SPACES, "  ", "    ", "\n\n", *"aBế7²!'.<|>s中\u0301", "'re"])
).map("".join)


def foreign(lossy=True):
    """A word-piece-like tokenizer of the kind that lowers case and marks beginnings of words."""
    vocabulary = {"[UNK]": 0, "▁the": 1, "▁cat": 2, "▁s": 3, "at": 4, "▁": 5, "</s>": 6}
    library = Library(models.WordLevel(vocabulary, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    library.normalizer = normalizers.Lowercase()
    library.add_special_tokens(["[UNK]", "</s>"])
    library.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 6)]
    )
    library.enable_truncation(2)
    library.enable_padding(length=9)
    return SubwordTokenizer(library.to_str().encode())


@pytest.mark.parametrize("tokenizer", LOSSLESS, ids=lambda t: type(t).__name__)
@given(data=st.data())
def test_text_comes_back_exactly(tokenizer, data):
    known = st.text(sorted(set(SAMPLE))) if isinstance(tokenizer, CharTokenizer) else TEXT
    text = data.draw(known)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes(i) for i in ids.tolist()) == text.encode()
    assert tokenizer.token_byte_lengths()[ids].sum() == len(text.encode())
    assert tokenizer.lossless
    assert ids.dtype == np.uint32


@pytest.mark.parametrize("tokenizer", LOSSLESS, ids=lambda t: type(t).__name__)
@given(data=st.data())
def test_a_stream_of_tokens_says_what_decoding_them_all_says(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    stream = TextStream(tokenizer)
    said = [stream.push(i) for i in ids]
    assert "".join(said) + stream.flush() == tokenizer.decode(ids)


def test_a_character_split_over_tokens_comes_out_whole_and_once():
    stream = TextStream(ByteTokenizer())
    assert [stream.push(byte) for byte in "ế🙂".encode()] == ["", "", "ế", "", "", "", "🙂"]
    assert stream.flush() == ""


def test_a_stream_can_be_used_again_after_a_flush():
    stream = TextStream(ByteTokenizer())
    assert (stream.push(0xE1), stream.flush()) == ("", "\ufffd")
    assert stream.push(ord("x")) == "x"


def test_characters_are_sorted_and_the_end_of_text_comes_last():
    tokenizer = CharTokenizer("hello", end_of_text=True)
    assert (tokenizer.alphabet, tokenizer.vocab_size, tokenizer.eot_id) == ("ehlo", 5, 4)
    assert tokenizer.encode("ole").tolist() == [3, 2, 0]
    assert CharTokenizer("hello", end_of_text=False).eot_id is None


@pytest.mark.parametrize("text", ["hex", "h🙂", "\ud800", "\U0010ffff"])
def test_an_unknown_character_is_named(text):
    unknown = f"U\\+{ord(text[-1]):04X}"
    with pytest.raises(DataError, match=f"character .* \\({unknown}\\) at place {len(text) - 1} "):
        CharTokenizer("hello", end_of_text=False).encode(text)


@pytest.mark.parametrize("tokenizer", LOSSLESS[1:], ids=lambda t: type(t).__name__)
def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(DataError, match=r"half a surrogate pair .* at place 1"):
        tokenizer.encode("a\ud800")


@pytest.mark.parametrize("tokenizer", [*LOSSLESS, foreign()], ids=lambda t: type(t).__name__)
def test_an_id_outside_the_vocabulary_is_refused(tokenizer):
    for token in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match=f"token id {token} found; expected 0 to "):
            tokenizer.token_bytes(token)


@pytest.mark.parametrize("tokenizer", [*LOSSLESS, foreign()], ids=lambda t: type(t).__name__)
def test_a_saved_tokenizer_is_the_same_after_loading(tokenizer, tmp_path):
    path = tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.sha256 == tokenizer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.vocab_size, loaded.eot_id) == (tokenizer.vocab_size, tokenizer.eot_id)
    text = SAMPLE[:50]
    assert loaded.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_the_end_of_text_is_written_by_its_id_alone():
    assert BPE.eot_id is not None
    assert BPE.eot_id not in BPE.encode("a<|endoftext|>b")
    assert BPE.decode(BPE.encode("a<|endoftext|>b")) == "a<|endoftext|>b"
    assert BPE.token_bytes(BPE.eot_id) == b""


def test_the_same_text_trains_the_same_tokenizer_however_it_is_cut():
    pieces = [SAMPLE[i : i + 7] for i in range(0, len(SAMPLE), 7)]
    again = train_bpe(cut_at_spaces(iter(pieces), 100), vocab_size=400)
    assert again.sha256 == BPE.sha256


def test_a_vocabulary_the_text_cannot_fill_comes_out_smaller():
    assert train_bpe(iter(["abab"]), vocab_size=5000).vocab_size == 258  # one pair to merge


@given(text=AWKWARD, least=st.integers(1, 5), size=st.integers(1, 4))
@example(text="a \n b", least=1, size=1)
@example(text="a  b\n\nc' re", least=1, size=9)
@example(text="a    b", least=1, size=3)
def test_cutting_before_white_space_changes_no_token(text, least, size):
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    cut = list(cut_at_spaces(iter(pieces), least))
    assert "".join(cut) == text
    parts = [BPE.encode(part) for part in cut]
    assert np.array_equal(np.concatenate([BPE.encode(""), *parts]), BPE.encode(text))


def test_cuts_are_made_as_soon_as_they_may():
    assert list(cut_at_spaces(iter(["ab cd", " ef\n", "gh"]), 4)) == ["ab", " cd ef", "\ngh"]


def test_the_byte_alphabet_is_the_librarys():
    assert set(BYTE_OF) == set(pre_tokenizers.ByteLevel.alphabet())
    library = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for char in map(chr, range(0x800)):
        ((written, _),) = library.pre_tokenize_str(char)
        assert bytes(BYTE_OF[c] for c in written) == char.encode()


def test_a_foreign_tokenizer_works_without_its_template_and_is_marked_lossy():
    tokenizer = foreign()
    ids = tokenizer.encode("The CAT the")
    assert ids.tolist() == [1, 2, 1]  # neither </s>, nor cut to two, nor padded to nine
    assert tokenizer.decode(ids) == " the cat the"
    assert (tokenizer.lossless, tokenizer.cuts, tokenizer.eot_id) == (False, "nowhere", 6)


def edited(**changes):
    spec = json.loads(BPE.saved()[1])
    for name, value in changes.items():
        spec[name] = value
    return SubwordTokenizer(json.dumps(spec).encode())


@pytest.mark.parametrize(
    ("changes", "lossless", "cuts"),
    [
        ({}, True, "space"),
        ({"normalizer": {"type": "NFC"}}, False, "nowhere"),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {
                            "type": "Split",
                            "pattern": {"Regex": r"\s*[\r\n]+|\S+"},
                            "behavior": "Isolated",
                            "invert": False,
                        },
                        {
                            "type": "ByteLevel",
                            "add_prefix_space": False,
                            "trim_offsets": True,
                            "use_regex": False,
                        },
                    ],
                }
            },
            True,
            "nowhere",
        ),
        (
            {
                "pre_tokenizer": {
                    "type": "ByteLevel",
                    "add_prefix_space": True,
                    "trim_offsets": True,
                    "use_regex": True,
                }
            },
            False,
            "nowhere",
        ),
    ],
    ids=["ours", "normalised", "another pattern", "prefix space"],
)
def test_what_a_tokenizer_keeps_and_where_it_may_be_cut_is_read_from_its_file(
    changes, lossless, cuts
):
    tokenizer = edited(**changes)
    assert (tokenizer.lossless, tokenizer.cuts) == (lossless, cuts)
    text = "e\u0301 one\n\n two"
    assert (tokenizer.decode(tokenizer.encode(text)) == text) == lossless


def test_dropout_in_the_file_is_turned_off():
    tokenizer = edited(model={**json.loads(BPE.saved()[1])["model"], "dropout": 0.9})
    assert tokenizer.encode(SAMPLE).tolist() == BPE.encode(SAMPLE).tolist()


def test_a_path_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no tokenizer at .*; expected a tokenizer\.json"):
        read_tokenizer(str(tmp_path))
    with pytest.raises(DataError, match="no tokenizer at"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "chars.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"alphabet": 3}'])
def test_a_file_that_is_no_tokenizer_is_one_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: not a "):
        load_tokenizer(tmp_path)


def test_a_file_too_large_for_a_tokenizer_is_not_read(tmp_path):
    with (tmp_path / "tokenizer.json").open("wb") as stream:
        stream.truncate((1 << 28) + 1)
    with pytest.raises(DataError, match="268435457 bytes found; expected at most"):
        load_tokenizer(tmp_path)
