"""llama2.c's files: a pretrained model, and small ones written here number by number."""

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hf_models import LLAMA, build
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HFTokenizer
from tokenizers.models import BPE

from assay.data.tokenizer import TextStream
from assay.errors import CheckpointError, DataError
from assay.hf import from_hf, load_llama2c
from assay.hf.llama2c_tokenizer import Llama2cTokenizer

BOS = 1


def tokenizer_file(words):
    pieces = [(b"<unk>", 0.0), (b"\n<s>\n", 0.0), (b"\n</s>\n", 0.0)]
    pieces += [(f"<0x{byte:02X}>".encode(), 0.0) for byte in range(256)]
    pieces += [(word.encode(), float(score)) for word, score in words.items()]
    body = b"".join(struct.pack("<fi", score, len(piece)) + piece for piece, score in pieces)
    return struct.pack("<i", max(len(piece) for piece, _ in pieces)) + body


WORDS = {
    "th": -1, "he": -2, "the": -3, " t": -4, " th": -5, " the": -6, "ab": -7, "ba": -7, "aba": -8,
    " ": -9, "t": -10, "h": -11, "e": -12, "a": -13, "b": -14, "é": -15, "\n": -16,
}  # fmt: skip
TOKENIZER = Llama2cTokenizer(tokenizer_file(WORDS))


@pytest.fixture(scope="module")
def stories():
    data = os.environ.get("ASSAY_DATA")
    if not data:
        pytest.skip("ASSAY_DATA is not set: the pretrained model is not at hand")
    return Path(data) / "stories260K"


@pytest.fixture(scope="module")
def pretrained(stories):
    return load_llama2c(stories / "stories260K.bin", stories / "tok512.bin")


def greedy_plainly(model, tokens, n_new):
    with torch.no_grad():
        for _ in range(n_new):
            tokens = [*tokens, int(model(torch.tensor([tokens]))[0, -1].argmax())]
    return tokens


def greedy_with_cache(model, tokens, n_new):
    cache, new = model.new_cache(), tokens
    with torch.no_grad():
        for _ in range(n_new):
            new = [int(model(torch.tensor([new]), cache)[0, -1].argmax())]
            tokens = tokens + new
    return tokens


@pytest.mark.parametrize("greedy", [greedy_plainly, greedy_with_cache])
def test_the_pretrained_model_tells_its_published_story(greedy, stories, pretrained):
    model, tokenizer = pretrained
    told = tokenizer.decode(greedy(model, [BOS], 256))  # llama2.c's default number of steps
    assert told.encode() == (stories / "golden_greedy.txt").read_bytes()


def test_the_pretrained_models_sizes_are_those_of_its_card(pretrained):
    model, tokenizer = pretrained
    assert sum(p.numel() for p in model.parameters()) == 260_032
    assert tokenizer.vocab_size == model.config.vocab == 512
    assert (model.config.mixer.n_heads, model.config.mixer.n_kv_heads) == (8, 4)
    assert model.config.tie_embeddings


def test_the_story_is_likely_under_the_model_and_its_own_tokenizer(stories, pretrained):
    """Encoding by scores gives the very tokens that the model was trained on, and told."""
    model, tokenizer = pretrained
    told = greedy_plainly(model, [BOS], 60)
    assert tokenizer.encode(tokenizer.decode(told)).tolist() == told


def interleave(weight, n_heads):
    """Undo Hugging Face's order of rotated channels, by the indices themselves."""
    d_head = weight.shape[0] // n_heads
    order = [h * d_head + (i // 2 + (i % 2) * d_head // 2)
             for h in range(n_heads) for i in range(d_head)]  # fmt: skip
    return weight[order]


def checkpoint(model, *, tied):
    """Write a Llama of transformers in the order of llama2.c's legacy_export."""
    config, s = model.config, model.state_dict()
    layers = range(config.num_hidden_layers)
    n_heads, n_kv = config.num_attention_heads, config.num_key_value_heads

    def each(name, change=lambda w: w):
        return [change(s[f"model.layers.{i}.{name}.weight"]) for i in layers]

    tensors = [s["model.embed_tokens.weight"], *each("input_layernorm")]
    tensors += each("self_attn.q_proj", lambda w: interleave(w, n_heads))
    tensors += each("self_attn.k_proj", lambda w: interleave(w, n_kv))
    tensors += each("self_attn.v_proj") + each("self_attn.o_proj")
    tensors += each("post_attention_layernorm")
    tensors += each("mlp.gate_proj") + each("mlp.down_proj") + each("mlp.up_proj")
    tensors += [s["model.norm.weight"]]
    length, d_head = config.max_position_embeddings, config.hidden_size // n_heads
    tensors += [torch.full((length, d_head // 2), torch.nan)] * 2  # never read
    tensors += [] if tied else [s["lm_head.weight"]]
    header = struct.pack(
        "<7i", config.hidden_size, config.intermediate_size, len(layers), n_heads, n_kv,
        config.vocab_size if tied else -config.vocab_size, length,
    )  # fmt: skip
    return header + b"".join(t.numpy().astype("<f4").tobytes() for t in tensors)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def written(request, tmp_path):
    n_words = len(WORDS) + 259
    fields = LLAMA | {"vocab_size": n_words, "rope_theta": 1e4, "rms_norm_eps": 1e-5}
    model = build(fields | {"tie_word_embeddings": request.param}).float()
    (tmp_path / "model.bin").write_bytes(checkpoint(model, tied=request.param))
    (tmp_path / "tokenizer.bin").write_bytes(tokenizer_file(WORDS))
    return model, tmp_path / "model.bin", tmp_path / "tokenizer.bin"


def test_a_checkpoint_holds_the_same_bits_as_hugging_faces_form(written):
    model, *paths = written
    ours, _ = load_llama2c(*paths)
    expected = from_hf(model.config.to_dict(), model.state_dict())
    assert ours.config.tie_embeddings == model.config.tie_word_embeddings
    pairs = zip(ours.named_parameters(), expected.named_parameters(), strict=True)
    for (name, parameter), (same_name, right) in pairs:
        assert name == same_name
        assert torch.equal(parameter, right), name
    assert not ours.training


@pytest.mark.parametrize("n_bytes", [0, 27, 28, 1000, -4, -1])
def test_a_checkpoint_cut_short_is_refused_before_it_is_read(written, n_bytes):
    _, path, tokenizer = written
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(CheckpointError, match=r"model\.bin: \d+ bytes found; expected"):
        load_llama2c(path, tokenizer)


def test_a_checkpoint_with_something_after_it_is_refused(written):
    _, path, tokenizer = written
    path.write_bytes(path.read_bytes() + b"\0\0\0\0")
    with pytest.raises(CheckpointError, match="bytes found; expected"):
        load_llama2c(path, tokenizer)


@given(header=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=7, max_size=7))
def test_any_header_is_refused_by_a_sentence(header, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "header.bin"
    path.write_bytes(struct.pack("<7i", *header) + b"\0" * 64)
    tokenizer = tmp_path_factory.getbasetemp() / "tokenizer.bin"
    tokenizer.write_bytes(tokenizer_file(WORDS))
    with pytest.raises(CheckpointError, match=r"header\.bin: "):
        load_llama2c(path, tokenizer)


def test_the_tokenizer_of_another_model_is_refused(written):
    _, path, tokenizer = written
    tokenizer.write_bytes(tokenizer_file(WORDS | {"zz": -1}))
    with pytest.raises(DataError, match=r"277 tokens found; expected the 276 of"):
        load_llama2c(path, tokenizer)


def test_a_missing_file_is_named(tmp_path, written):
    _, path, tokenizer = written
    with pytest.raises(CheckpointError, match=r"nowhere\.bin: No such file"):
        load_llama2c(tmp_path / "nowhere.bin", tokenizer)
    with pytest.raises(DataError, match=r"nowhere\.bin: No such file"):
        load_llama2c(path, tmp_path / "nowhere.bin")


# --- the tokenizer -------------------------------------------------------------------------------


def as_tokenizers_bpe(tokenizer):
    """The same pieces as merges ranked by score, for an implementation that is not ours."""
    _, content = tokenizer.saved()
    pieces, place = [], 4
    while place < len(content):
        score, length = struct.unpack_from("<fi", content, place)
        pieces.append((score, content[place + 8 : place + 8 + length]))
        place += 8 + length
    vocab = {piece.decode(): i for i, (_, piece) in enumerate(pieces)}
    merges = [
        (-score, i, (piece.decode()[:cut], piece.decode()[cut:]))
        for i, (score, piece) in enumerate(pieces[259:], start=259)
        for cut in range(1, len(piece.decode()))
        if piece.decode()[:cut] in vocab and piece.decode()[cut:] in vocab
    ]
    ranked = [merge for _, _, merge in sorted(merges)]
    return HFTokenizer(BPE(vocab=vocab, merges=ranked, byte_fallback=True))


def encoded_by(oracle, text):
    return [BOS, *oracle.encode(f" {text}").ids] if text else [BOS]


texts = st.text(st.sampled_from("thea b \n") | st.characters(codec="utf-8"), max_size=30)


def test_the_best_score_is_merged_first_and_of_equals_the_leftmost():
    pieces = [TOKENIZER.token_bytes(i).decode() for i in TOKENIZER.encode("the abab")[1:]]
    assert pieces == [" the", " ", "ab", "ab"]  # th, the, " the"
    pieces = [TOKENIZER.token_bytes(i).decode() for i in TOKENIZER.encode("ababa")[1:]]
    assert pieces == [" ", "ab", "aba"]


@given(text=texts)
def test_tokens_equal_those_of_the_tokenizers_library(text):
    oracle = as_tokenizers_bpe(TOKENIZER)
    assert TOKENIZER.encode(text).tolist() == encoded_by(oracle, text)


def test_on_the_pretrained_tokenizer_too(stories, pretrained):
    _, tokenizer = pretrained
    oracle = as_tokenizers_bpe(tokenizer)
    story = (stories / "golden_greedy.txt").read_text(encoding="utf-8")
    texts = [*re.split(r"(?<=[.!?]) ", story), "  two  spaces ", "Ngày xửa ngày xưa 🐉", "<0x0A>"]
    for text in texts:
        assert tokenizer.encode(text).tolist() == encoded_by(oracle, text)


@given(text=texts)
def test_decoding_gives_the_text_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(text=texts)
def test_pieces_with_spaces_inside_are_merged_across_words(text):
    tokenizer = Llama2cTokenizer(tokenizer_file(WORDS | {"e ": 0, "e t": 1, "  ": 2}))
    assert tokenizer.encode(text).tolist() == encoded_by(as_tokenizers_bpe(tokenizer), text)


def test_only_the_space_after_a_beginning_is_dropped():
    _, the = TOKENIZER.encode("the").tolist()  # the piece begins with a space
    assert TOKENIZER.decode([BOS, the, the, BOS, the]) == "the thethe"
    assert TOKENIZER.decode([the]) == " the"  # a continuation keeps its own


@given(text=texts)
def test_streamed_text_is_the_decoded_text_after_the_first_space(text):
    tokens = TOKENIZER.encode(text).tolist()
    stream = TextStream(TOKENIZER)
    assert "".join(map(stream.push, tokens)) + stream.flush() == (f" {text}" if text else "")


def test_bytes_that_are_no_utf8_become_replacement_characters():
    assert TOKENIZER.decode([3 + 0xFF, 3 + 0x41]) == "\ufffdA"


def test_it_is_saved_as_the_file_it_was(tmp_path):
    path = TOKENIZER.save(tmp_path)
    again = Llama2cTokenizer.read(path)
    assert path.read_bytes() == tokenizer_file(WORDS)
    assert again.sha256 == TOKENIZER.sha256
    assert again.encode("the éab").tolist() == TOKENIZER.encode("the éab").tolist()
    assert again.encode("").dtype == np.uint32


@given(cut=st.integers(0, 5000), junk=st.binary(max_size=40))
def test_a_spoilt_tokenizer_is_refused_or_reads_as_one(cut, junk):
    whole = tokenizer_file(WORDS)
    try:
        tokenizer = Llama2cTokenizer(whole[: min(cut, len(whole))] + junk)
    except DataError as error:
        assert "expected a llama2.c tokenizer.bin" in str(error)  # noqa: PT017
    else:
        assert tokenizer.vocab_size >= 259


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(DataError, match="surrogate"):
        TOKENIZER.encode("a\ud800")


def test_an_id_outside_the_vocabulary_is_refused():
    with pytest.raises(DataError, match="token id 276 found; expected 0 to 275"):
        TOKENIZER.token_bytes(276)
