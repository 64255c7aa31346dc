"""A study as one page of HTML that needs no network and no other file."""

from collections.abc import Iterable, Iterator
from html import escape

from assay.experiments.document import document
from assay.experiments.figure import differences_figure
from assay.experiments.markup import inline, paragraph
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
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid #ddd }
td { white-space: nowrap }
td.words { white-space: normal; text-align: left; min-width: 16rem }
th:first-child, td:first-child { text-align: left }
"""


def html(results: Results) -> str:
    """Return the page: what was compared, the figure, every arm, every run and how to repeat it."""
    study = results.study
    arms, runs = _table(arm_rows(results)), _table(run_rows(results), linked=True)
    body = f"""<h1>{escape(study.name)}</h1>
{_sentences(design_words(results))}
<ul>{_sentences(map(paragraph, findings(results)), "li")}</ul>
{_sentences(visible_words(results))}
<div id="figure" class="wide"></div>
<p>{_LEGEND}{_LEGEND_OF_DOCUMENTS if any(c.documents for c in results.comparisons) else "."}</p>
<div class="wide">{arms}</div>
<h2>Runs</h2>
<p>A run is trained again and held to its recorded numbers by
<code>assay check determinism {escape(str(study.lab))}/cells/KEY</code>, all of them by
<code>assay verify {escape(str(study.folder))}</code>; two are compared by
<code>assay diff</code>.</p>
<div class="wide">{runs}</div>
<p>Code: SHA-256 {escape(study.record.code_sha256[:16])}... over the sources these numbers
depend on.</p>"""
    return document(study.name, body, {"figure": differences_figure(results)}, style=_STYLE)


def _sentences(lines: Iterable[str], element: str = "p") -> str:
    return "\n".join(f"<{element}>{inline(line)}</{element}>" for line in lines)


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
