"""Real texts and real tokenizers, compared with figures and programs that are not ours."""

import hashlib
import lzma

import numpy as np
import pytest

from assay.data.bytelevel import cut_at_spaces
from assay.data.config import (
    TOKENIZERS,
    BPETokenizerConfig,
    CharTokenizerConfig,
    DataConfig,
    FileTokenizerConfig,
)
from assay.data.prepare import prepare
from assay.data.subword import read_tokenizer, train_bpe
from assay.data.tokenizer import ByteTokenizer, CharTokenizer, TextStream

GPT2_PATTERN = (
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
)


@pytest.fixture
def shakespeare(real_data):
    return real_data / "tinyshakespeare" / "input.txt"


@pytest.fixture
def kieu(real_data):
    return (real_data / "truyen_kieu" / "truyen_kieu.txt").read_text(encoding="utf-8")


@pytest.fixture
def vietnamese(real_data):
    with lzma.open(real_data / "viwiki2017" / "viwiki.txt.xz", "rt", encoding="utf-8") as stream:
        return stream.read(2_000_000)


@pytest.fixture
def gpt2(real_data):
    return read_tokenizer(str(real_data / "gpt2_tokenizer"))


@pytest.fixture
def tiktoken_gpt2(real_data):
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    folder = real_data / "gpt2_tokenizer"
    ranks = data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(folder / "vocab.bpe"), encoder_json_file=str(folder / "encoder.json")
    )
    return tiktoken.Encoding(
        "gpt2",
        pat_str=GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 50256},
    )


def test_tinyshakespeare_by_characters_is_split_as_nanogpt_splits_it(shakespeare, tmp_path):
    config = DataConfig(text=(str(shakespeare),), tokenizer=CharTokenizerConfig())
    data = prepare(config, tmp_path)
    assert data.tokenizer.vocab_size == 65
    assert (len(data.train.ids), len(data.val.ids)) == (1_003_854, 111_540)


@pytest.mark.slow
def test_gpt2s_files_give_the_published_number_of_tokens(shakespeare, gpt2, tmp_path):
    text = shakespeare.read_text(encoding="utf-8")
    assert len(gpt2.encode(text)) == 338_025
    folder = tmp_path / "gpt2"
    folder.mkdir()
    gpt2.save(folder)
    config = DataConfig(text=(str(shakespeare),), tokenizer=FileTokenizerConfig(path=str(folder)))
    data = prepare(config, tmp_path)
    # nanoGPT's readme: 301,966 and 36,059; here the end of the document is a token of its own
    assert (len(data.train.ids), len(data.val.ids)) == (301_966, 36_059 + 1)


@pytest.mark.slow
def test_gpt2s_ids_are_tiktokens(gpt2, tiktoken_gpt2, kieu, vietnamese):
    code = "def f(x):\n\treturn {'a': [x ** 2 for x in range(10)]}  # don't\r\n\r\n    pass\n\n\n"
    emoji = "👩‍👩‍👧‍👦 🇻🇳 naïve e\u0301 ﷽ \u00a0\u3000\u2028 x\u200by 日本語。 ½² ٣ \x00"
    for text in (kieu, vietnamese[:500_000], code * 3, emoji, "<|endoftext|>", "   ", ""):
        assert gpt2.encode(text).tolist() == tiktoken_gpt2.encode(text, disallowed_special=())


@pytest.mark.slow
def test_cutting_real_text_changes_no_token(gpt2, vietnamese, shakespeare):
    for text in (vietnamese[:400_000], shakespeare.read_text(encoding="utf-8")[:400_000]):
        parts = list(cut_at_spaces(iter([text[i : i + 97] for i in range(0, len(text), 97)]), 50))
        assert len(parts) > 1000
        ids = np.concatenate(gpt2.encode_batch(parts))
        assert np.array_equal(ids, gpt2.encode(text))


def test_the_bytes_of_gpt2s_tokens_are_tiktokens(gpt2, tiktoken_gpt2):
    for token in range(50_256):
        assert gpt2.token_bytes(token) == tiktoken_gpt2.decode_single_token_bytes(token)
    assert (gpt2.eot_id, gpt2.lossless, gpt2.vocab_size) == (50_256, True, 50_257)


@pytest.mark.slow
def test_vietnamese_comes_back_exactly_under_every_tokenizer(gpt2, kieu, vietnamese):
    text = kieu + vietnamese
    own = train_bpe(cut_at_spaces(iter([vietnamese]), 1 << 16), vocab_size=2048)
    tokenizers = [CharTokenizer(text, end_of_text=False), ByteTokenizer(), own, gpt2]
    assert len(tokenizers) == len(TOKENIZERS)
    for tokenizer in tokenizers:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        stream = TextStream(tokenizer)
        beginning = "".join([stream.push(i) for i in ids[:20_000]]) + stream.flush()
        assert beginning == tokenizer.decode(ids[:20_000])


@pytest.mark.slow
def test_the_bundled_works_train_the_same_tokenizer_everywhere(tmp_path):
    """Pinned: another hash means that old runs can no longer be matched with their tokenizer."""
    data = prepare(DataConfig(tokenizer=BPETokenizerConfig(vocab_size=512)), tmp_path)
    assert data.summary["split"] == "document"
    assert data.summary["documents"] == 42
    tokens = [data.tokenizer.token_bytes(i) for i in range(data.tokenizer.vocab_size)]
    assert tokens[-3:] == [b" there", b"ep", b"au"]
    assert hashlib.sha256(b"\n".join(tokens)).hexdigest() == BUNDLED_BPE_512


BUNDLED_BPE_512 = "6ae344f512ee4de3dc01e0e6c018b09516d7cc40e51237d0b013a7ccacbdbca9"
