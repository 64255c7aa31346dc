"""GPT-2's way of writing any byte as a printable character, and cuts that tokens never cross.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
"""

from collections.abc import Iterator

# The bytes that stand for themselves: printable Latin-1, without space and soft hyphen.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = sorted(set(range(256)) - set(_PRINTABLE))
BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + place): byte for place, byte in enumerate(_OTHERS)
}


def token_to_bytes(token: str) -> bytes:
    """Return the bytes that a byte-level token's characters stand for.

    Raises:
        KeyError: For a character outside the 256.
    """
    return bytes(BYTE_OF[char] for char in token)


def cut_at_spaces(pieces: Iterator[str], least: int) -> Iterator[str]:
    r"""Regroup `pieces` into texts of `least` characters or more, cut before white space.

    The cut falls before a white space that follows something else. GPT-2's pre-tokenizer gives the
    same words on either side: its words of letters, digits or signs end before a white space, and
    the next word begins at it, whatever came before. Its `\s+(?!\S)` looks forward only, and the
    left text ends in a character that is no space, so it never looks across the cut.
    """
    waiting: list[str] = []
    size = 0
    for piece in pieces:
        place = _last_cut(piece) if size + len(piece) >= least else 0
        if place:
            yield "".join((*waiting, piece[:place]))
            waiting, size = [], 0
        waiting.append(piece[place:])
        size += len(piece) - place
    if size:
        yield "".join(waiting)


def _last_cut(text: str) -> int:
    """Return the last place in `text` where it may be cut, or 0."""
    return next(
        (i for i in range(len(text) - 1, 0, -1) if text[i].isspace() and not text[i - 1].isspace()),
        0,
    )
