"""A study as one page of HTML that needs no network and no other file."""

import json
import re
from collections.abc import Iterator
from html import escape

from assay.experiments.figure import differences_figure, library
from assay.experiments.report import (
    arm_rows,
    design_words,
    findings,
    run_rows,
    visible_words,
)
from assay.experiments.results import Results

_LEGEND = "Dot: mean difference. Line: its interval. Ticks: the seeds, one by one"
_LEGEND_OF_DOCUMENTS = ". Thin line: seeds and validation documents resampled."
_WORDS = 40  # letters from which on a cell is no number and may break into lines
_STYLE = """
body { font: 16px/1.5 sans-serif; color: #222; max-width: 80rem; margin: 2rem auto; padding: 1rem }
table { border-collapse: collapse; font-size: 14px; margin: 1rem 0 }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid #ddd }
td { white-space: nowrap }
td.words { white-space: normal; text-align: left; min-width: 16rem }
th:first-child, td:first-child { text-align: left }
thead th { border-bottom: 2px solid #222 }
.wide { overflow-x: auto }
code { background: #f3f3f3; padding: 0 .2rem }
"""


def html(results: Results) -> str:
    """Return the page: what was compared, the figure, every arm, every run and how to repeat it."""
    study = results.study
    figure, drawing = json.dumps(differences_figure(results)), _in_script(library())
    arms, runs = _table(arm_rows(results)), _table(run_rows(results), linked=True)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(study.name)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(study.name)}</h1>
{_sentences(design_words(results))}
<ul>{_sentences(findings(results), "li")}</ul>
{_sentences(visible_words(results))}
<div id="figure" class="wide"></div>
<p>{_LEGEND}{_LEGEND_OF_DOCUMENTS if any(c.documents for c in results.comparisons) else "."}</p>
<div class="wide">{arms}</div>
<h2>Runs</h2>
<p>A run is trained again and held to its recorded numbers by
<code>assay check determinism {escape(str(study.lab))}/cells/KEY</code>; two are compared by
<code>assay diff</code>.</p>
<div class="wide">{runs}</div>
<p>Code: SHA-256 {study.record.code_sha256[:16]}... over the sources these numbers depend on.</p>
<script>{drawing}</script>
<script>vegaEmbed("#figure", {_in_script(figure)}, {{actions: false}});</script>
</body>
</html>
"""


def _sentences(lines: Iterator[str], element: str = "p") -> str:
    return "\n".join(f"<{element}>{_inline(line)}</{element}>" for line in lines)


def _in_script(code: str) -> str:
    """Return JavaScript or JSON whose strings do not end the element it stands in."""
    return code.replace("</script", "<\\/script")


def _inline(text: str) -> str:
    """Escape, and turn the Markdown that the sentences use into HTML."""
    parts = escape(text).split("`")
    coded = (f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", "".join(coded))


def _table(rows: list[list[str]], *, linked: bool = False) -> str:
    head, *body = rows
    lines = "".join(f"<tr>{''.join(_cells(row, linked=linked))}</tr>" for row in body)
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def _cells(row: list[str], *, linked: bool) -> Iterator[str]:
    for place, value in enumerate(row):
        if linked and place == len(row) - 1:  # the run's folder, from the study's
            yield f'<td><a href="../../{escape(value)}/config.json">{escape(value[:14])}</a></td>'
        else:
            words = ' class="words"' if len(value) > _WORDS else ""
            yield f"<td{words}>{escape(value)}</td>"
