"""Text of strangers on a terminal: what a model wrote, what a file is named, what an error quotes.

A control character in it could move the cursor, set the title, or hide what stands before it.
"""


def printable(text: str) -> str:
    """Return text whose control characters are replaced by U+FFFD; line breaks and tabs stay."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def escaped(text: str, *, keep: str = "") -> str:
    r"""Return text whose control characters, all but `keep`, are spelt out, such as `\x1b`."""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )
