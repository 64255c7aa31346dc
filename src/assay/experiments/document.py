"""What pages of studies and of claims share: one HTML file that needs no network and no other."""

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from assay.errors import RunError
from assay.experiments.figure import library
from assay.experiments.markup import script_json

_ENDS = re.compile(r"</?script|<!--", re.IGNORECASE)
_STYLE = """
table { border-collapse: collapse; font-size: 14px; margin: 1rem 0 }
thead th { border-bottom: 2px solid #222 }
.wide { overflow-x: auto }
code { background: #f3f3f3; padding: 0 .2rem }
"""


def document(
    title: str,
    body: str,
    figures: Mapping[str, Any],
    *,
    style: str,
    language: str = "en",
    script: str = "",
) -> str:
    """Return the whole file.

    Args:
        title: Of the window.
        body: HTML.
        figures: Vega-Lite specifications by the id of the element they are drawn in.
        style: What is laid upon the common style.
        language: Of the words.
        script: JavaScript that runs once the figures are drawn.
    """
    drawing = f"""const FIGURES = {script_json(figures)};
for (const [id, spec] of Object.entries(FIGURES)) {{
  vegaEmbed(document.getElementById(id), spec, {{actions: false}});
}}
{script}"""
    return f"""<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
{body}
<script>{_program(library())}</script>
<script>{_program(drawing)}</script>
</body>
</html>
"""


def _program(code: str) -> str:
    """Return JavaScript of our own, or of the library, to stand in a <script>.

    Raises:
        RunError: If it holds what ends or changes that element, as neither does.
    """
    if found := _ENDS.search(code):
        raise RunError(
            f"the library that draws figures: {found[0]!r} found in it; expected what can stand in "
            "a page. Remove the folder `figures` of the cache, and it is made anew."
        )
    return code
