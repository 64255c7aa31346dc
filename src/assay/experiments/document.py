"""What pages of studies and of claims share: one HTML file that needs no network and no other."""

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from assay.experiments.figure import library

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
    drawing = f"""const FIGURES = {json.dumps(figures)};
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
<script>{_in_script(library())}</script>
<script>{_in_script(drawing)}</script>
</body>
</html>
"""


def inline(text: str) -> str:
    """Escape, and turn Markdown's `code` and **bold** into HTML."""
    parts = escape(text, quote=False).split("`")
    coded = (f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", "".join(coded))


def _in_script(code: str) -> str:
    """Return JavaScript or JSON whose strings do not end the element it stands in."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
