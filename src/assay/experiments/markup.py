r"""Text of anyone put into HTML, Markdown and LaTeX so that it stays text.

An arm is named by the values compared in it, a text by its path, and a report shows both: no letter
of them may be taken for markup. Sentences about them are Markdown, in which names stand by `code`
or `plain`; `inline` turns such a sentence into HTML.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

Rows = list[list[str]]
_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_LINES = str.maketrans({"\n": " ", "\r": " ", "\v": " ", "\f": " ", "\x85": " ",
                        "\u2028": " ", "\u2029": " "})  # fmt: skip
_MARKUP = re.compile(
    r"""[\\`*~$|]                 # wherever they stand
    | (?<![^\W_])_ | _(?![^\W_])  # inside a word it is no markup
    | <(?=[A-Za-z/!?])            # what could begin a tag
    | &(?=[A-Za-z#])              # or a letter's name
    | \](?=[(\[:])                # or make a link
    """,
    re.VERBOSE,
)
_BEGINS_BLOCK = re.compile(r"\s*(\d*)([#>=+.)-])")  # a heading, a quotation, a list
_INLINE = re.compile(r"\\([!-/:-@\[-`{-~])|(?<!`)(`+)(?!`)(.+?)(?<!`)\2(?!`)|(\*\*)")
_TEX = str.maketrans(
    {letter: f"\\{letter}" for letter in "_%&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)


def script_json(value: Any) -> str:  # noqa: ANN401
    """Return JSON to stand in a <script>: no string of it can end or change the element."""
    return json.dumps(value).translate(_IN_SCRIPT)


def inline(text: str) -> str:
    r"""Return a sentence of Markdown as HTML: `code`, **bold**, and letters escaped by \."""
    out, at, strong = list[str](), 0, list[int]()
    for found in _INLINE.finditer(text):
        out.append(escape(text[at : found.start()], quote=False))
        at = found.end()
        letter, _, code_text, _ = found.groups()
        if code_text is not None:
            out.append(f"<code>{escape(_without_padding(code_text), quote=False)}</code>")
        elif letter is not None:
            out.append(escape(letter, quote=False))
        else:
            strong.append(len(out))
            out.append("**")
    out.append(escape(text[at:], quote=False))
    for begin, end in zip(strong[::2], strong[1::2], strict=False):
        out[begin], out[end] = "<strong>", "</strong>"
    return "".join(out)


def code(text: str) -> str:
    """Return a text as a code span of Markdown, between more backticks than it has in a row."""
    text = text.translate(_LINES) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if text.strip(" ") and (text[0] in "` " or text[-1] in "` ") else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def plain(text: str) -> str:
    r"""Return a text of one line as Markdown in which no letter is markup."""
    return _MARKUP.sub(r"\\\g<0>", text.translate(_LINES))


def paragraph(text: str) -> str:
    r"""Return a text as Markdown that begins a line, or a list's point, and is no markup there."""
    begun = _BEGINS_BLOCK.match(text)
    return f"{begun[1]}\\{begun[2]}{plain(text[begun.end() :])}" if begun else plain(text)


def markdown_table(rows: Rows) -> Iterator[str]:
    """Yield a Markdown table, of rows of text under a row of headings."""
    head, *body = (" | ".join(map(plain, row)) for row in rows)
    yield f"| {head} |"
    yield "|" + "---|" * len(rows[0])
    for row in body:
        yield f"| {row} |"


def csv_table(rows: Iterable[Iterable[str]]) -> str:
    """Return rows as CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def latex_table(rows: Rows) -> str:
    """Return rows under a row of headings as a LaTeX table; needs booktabs."""
    head, *body = map(_tex_row, rows)
    begin = r"\begin{tabular}{l" + "r" * (len(rows[0]) - 1) + "}"
    lines = [begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def tex(text: str) -> str:
    """Return a text as LaTeX in which no letter is markup."""
    return text.translate(_LINES).translate(_TEX)


def _tex_row(row: list[str]) -> str:
    r"""Return a row; `[` or `*` at its beginning would be an argument of the `\\` before it."""
    line = " & ".join(map(tex, row)) + r" \\"
    return re.sub(r"^\s*([\[*])", r"{\1}", line)


def _without_padding(text: str) -> str:
    padded = text.startswith(" ") and text.endswith(" ") and text.strip(" ")
    return text[1:-1] if padded else text
