"""Text of anyone stays text, whatever reads the page, the Markdown or the LaTeX it stands in."""

import html
import json
import re

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from assay.experiments.markup import (
    code,
    inline,
    latex_table,
    markdown_table,
    paragraph,
    plain,
    script_json,
    tex,
)

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
SHORT = st.text("ab1 `*_~|\\<>&#;[](){}!:.-+=$\"'/é\u202e\u2028\n", max_size=12)
NAMES = ["</SCRIPT><img src=x onerror=alert(1)>", "<!--<script>", "]]>", "&lt;", "<b>x</b>",
         "[x](javascript:alert(1))", "`a` **b** ~~c~~ _d_ $e$", "a|b", "1. a", "# a", "- a",
         "\u202eabc", "a\\", "\\`", "![x](y)", "<https://a.b>", "a\nb", "x\n\n# y"]  # fmt: skip


def one_line(text):
    return re.sub(r"[\n\r\u2028\u2029]", " ", text)


def words(text):
    """Without the spaces, which Markdown and HTML may lay out otherwise."""
    return "".join(text.split())


def text_of(source):
    """The text that a browser shows of a fragment of HTML, and its elements."""
    tree = html5lib.parseFragment(source, namespaceHTMLElements=False)
    return "".join(tree.itertext()), [node.tag for node in tree.iter()][1:]


@given(SHORT)
def test_plain_text_is_text_in_a_page(text):
    assert text_of(inline(plain(text))) == (one_line(text), [])


@given(SHORT)
def test_plain_text_is_text_to_a_reader_of_markdown(text):
    shown, elements = text_of(MARKDOWN.renderInline(plain(text)))
    assert (words(shown), elements) == (words(text), [])


@given(SHORT.filter(str.strip))
def test_a_paragraph_of_a_text_is_one_paragraph(text):
    for source in (paragraph(text), f"* {paragraph(text)}"):
        shown, elements = text_of(MARKDOWN.render(source))
        assert words(shown) == words(text)
        assert set(elements) <= {"p", "ul", "li"}
        assert (elements or ["p"]) in (["p"], ["ul", "li"])


@given(SHORT)
def test_a_code_span_holds_the_text(text):
    assert text_of(inline(code(text))) == (one_line(text) or " ", ["code"])
    shown, elements = text_of(MARKDOWN.renderInline(code(text)))
    assert (words(shown), elements) == (words(text), ["code"])


@given(st.lists(st.lists(SHORT, min_size=2, max_size=2), min_size=2, max_size=3))
def test_a_table_has_the_cells_it_was_given(rows):
    shown, elements = text_of(MARKDOWN.render("\n".join(markdown_table(rows))))
    assert words(shown) == words("".join(cell for row in rows for cell in row))
    assert elements.count("tr") == len(rows)
    assert elements.count("th") + elements.count("td") == 2 * len(rows)
    assert set(elements) == {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("name", NAMES)
def test_json_in_a_script_neither_ends_it_nor_changes(name):
    page = html5lib.parse(
        f"<script>x = {script_json({name: [name]})};</script><p>after</p>",
        namespaceHTMLElements=False,
    )
    (script,) = page.iter("script")
    assert json.loads(script.text.removeprefix("x = ").removesuffix(";")) == {name: [name]}
    assert [p.text for p in page.iter("p")] == ["after"]
    assert not set("<>&\u2028\u2029") & set(script_json(name))


def test_bold_and_code_and_nothing_else_are_markup():
    made = inline("**Not `so`**: <b> & `a ** b` \\*\\* and ** alone")
    assert made == (
        "<strong>Not <code>so</code></strong>: &lt;b&gt; &amp; <code>a ** b</code> ** and ** alone"
    )
    assert html.unescape(inline('"quoted"')) == '"quoted"'


def test_latex_takes_no_letter_of_a_text_for_a_command():
    assert tex("\\{}$~^#%&_<>|\n") == (
        r"\textbackslash{}\{\}\$\textasciitilde{}\textasciicircum{}\#\%\&\_"
        r"\textless{}\textgreater{}\textbar{} "
    )
    rows = [["a_b", "c"], ["[2cm] x", "50 %"], ["*", "1 & 2"]]
    *_, first, second, _, _, _ = latex_table(rows).split("\n")
    assert first == r"{[}2cm] x & 50 \% \\"  # else the \\ before it would take [2cm]
    assert second == r"{*} & 1 \& 2 \\"


@given(st.text(r"\{}$~^#%&_ab", max_size=12))
def test_every_special_letter_of_latex_is_escaped(text):
    made = tex(text)
    for command in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}"):
        made = made.replace(command, "")
    assert not re.search(r"(?<!\\)[{}$~^#%&_]", made.replace(r"\\", ""))
    assert sum(made.count(letter) for letter in "$#%&_{}") == sum(map(text.count, "$#%&_{}"))
