"""A report as one page of HTML that needs no network and no other file."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Any

from assay.experiments.charts import draw
from assay.experiments.claim import Figure, Number, Table
from assay.experiments.document import document
from assay.experiments.evidence import Record
from assay.experiments.markup import inline
from assay.experiments.paper.interface import Interface, interface
from assay.experiments.paper.judged import Judged
from assay.experiments.tasks import read_task
from assay.experiments.words import ClaimWords, Language, words_of

_STYLE = """
body { font: 16px/1.55 sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 1rem }
th, td { padding: .3rem .7rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }
td.n, th.n { text-align: right; white-space: nowrap }
code { overflow-wrap: anywhere }
blockquote { border-left: 4px solid #ccc; margin: 1rem 0; padding: 0 1rem; color: #444 }
.v { border: 1px solid; border-radius: .3rem; padding: 0 .4rem; font-weight: 600; white-space: nowrap }
.confirmed { color: #00664a } .refuted { color: #a33c00 } .holds-only-when { color: #7a5a00 }
.equivalent { color: #00558a } .not-resolved, .not-testable-here { color: #595959 }
a.n { color: inherit; text-decoration-color: #999 }
tr:target { background: #fff3c4 }
figcaption { color: #444 }
summary { cursor: pointer }
@media print { details > summary { display: none } body { max-width: none } }
"""  # noqa: E501
_OPEN = """
function open_target() {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let e = row; e; e = e.parentElement) if (e.tagName === 'DETAILS') e.open = true;
  if (row) row.scrollIntoView();
}
addEventListener('hashchange', open_target);
open_target();
"""
_MOST_SHOWN = 600  # characters of what a record found


def html(report: Sequence[Judged], language: Language, facts: str) -> str:
    """Return the page: a summary, each claim with figures and tables, every number and record.

    Args:
        report: What was judged, in order.
        language: Of the page.
        facts: A line on budget, machine and versions.
    """
    told = interface(language)
    figures = {
        f"f-{judged.claim.id}-{figure.id}": draw(
            figure, _words(judged, language).figures[figure.id]
        )
        for judged in report
        for figure in judged.judgement.figures
    }
    body = [f"<h1>{escape(told.title)}</h1>", f"<p>{inline(told.abstract)}</p>"]
    body += [f"<p>{escape(facts)}</p>", *_summary(report, language)]
    for heading, group in groupby(report, key=lambda judged: told.heading(judged.claim)):
        body.append(f"<h2>{escape(heading)}</h2>")
        for judged in group:
            body += _claim(judged, language, told)
    body += _numbers(report, told)
    body += _records(report, told)
    return document(
        told.title, "\n".join(body), figures, style=_STYLE, language=language, script=_OPEN
    )


class _Linked:
    """A number that shows what it stands on when it is clicked."""

    def __init__(self, judged: Judged, number: Number) -> None:
        self._name, self._number = escape(f"{judged.claim.id}.{number.id}"), number

    def __format__(self, spec: str) -> str:
        text = escape(format(self._number, spec))
        return f'<a class="n" href="#{self._name}" title="{self._name}">{text}</a>'


def _words(judged: Judged, language: Language) -> ClaimWords:
    return words_of(judged.claim.id, language)


def _badge(verdict: str, told: Interface) -> str:
    kind = verdict.replace(" ", "-")
    return f'<span class="v {kind}">{escape(told.verdicts[verdict])}</span>'


def _summary(report: Sequence[Judged], language: Language) -> Iterator[str]:
    told = interface(language)
    yield f"<h2>{escape(told.summary)}</h2>"
    heads = "".join(f"<th>{escape(h)}</th>" for h in (told.section, told.claim, told.verdict))
    yield f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>'
    for judged in report:
        name, words = judged.claim.id, _words(judged, language)
        yield (
            f"<tr><td>{escape(judged.claim.section)}</td>"
            f'<td><a href="#{name}">{escape(words.claim)}</a></td>'
            f"<td>{_badge(judged.judgement.verdict, told)}</td></tr>"
        )
    yield "</tbody></table></div>"


def _claim(judged: Judged, language: Language, told: Interface) -> Iterator[str]:
    words, judgement, name = _words(judged, language), judged.judgement, escape(judged.claim.id)
    linked = {key: _Linked(judged, number) for key, number in judged.numbers.items()}
    yield f'<h3 id="{name}">{escape(words.title)} {_badge(judgement.verdict, told)}</h3>'
    if words.quote:
        yield f"<blockquote>{escape(told.quote)}: “{escape(words.quote)}”</blockquote>"
    yield f"<p><b>{told.claim}.</b> {inline(words.claim)}</p>"
    yield f"<p><b>{told.protocol}.</b> {inline(words.protocol)}</p>"
    if judgement.parts:
        yield f"<p><b>{told.findings}.</b></p><ul>"
    for part in judgement.parts:
        sentence = inline(words.parts[part.id]).format_map(linked)
        yield f"<li>{_badge(part.verdict, told)} {sentence}</li>"
    yield "</ul>" if judgement.parts else ""
    for figure in judgement.figures:
        yield from _figure(figure, words, name)
    for table in judgement.tables:
        yield from _table(table, words, told, linked)
    if words.discussion:
        yield f"<p><b>{told.discussion}.</b> {inline(words.discussion).format_map(linked)}</p>"
    yield f"<p><b>{told.limits}.</b> {inline(words.limits)}</p>"
    if judged.claim.sources:
        cited = escape("; ".join(map(str, judged.claim.sources)))
        yield f"<p><b>{told.sources}.</b> {cited}</p>"


def _figure(figure: Figure, words: ClaimWords, name: str) -> Iterator[str]:
    yield f'<figure class="wide"><div id="f-{name}-{escape(figure.id)}"></div>'
    yield f"<figcaption>{escape(words.figures[figure.id].title)}</figcaption></figure>"


def _table(
    table: Table, words: ClaimWords, told: Interface, linked: dict[str, _Linked]
) -> Iterator[str]:
    named, rows = words.tables[table.id], []
    for row in table.rows:
        texts = [
            (format(linked[cell.id], table.spec.get(column, ".4g")), "n")
            if isinstance(cell, Number)
            else (escape(told.cell(cell)), "")
            for column, cell in zip(table.columns, row, strict=True)
        ]
        rows.append("".join(f'<td class="{kind}">{text}</td>' for text, kind in texts))
    heads = "".join(f"<th>{escape(named.columns[column])}</th>" for column in table.columns)
    yield f'<div class="wide"><p>{escape(named.title)}</p><table><thead><tr>{heads}</tr></thead>'
    yield "<tbody>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</tbody></table></div>"


def _numbers(report: Sequence[Judged], told: Interface) -> Iterator[str]:
    heads = (told.number, told.value, told.interval, told.unit, told.tasks)
    yield f"<details><summary>{escape(told.numbers)}</summary>"
    yield f"<p>{escape(told.again)} <code>assay verify REPORT#ID</code>.</p>"
    yield f"<table><thead><tr>{''.join(f'<th>{escape(h)}</th>' for h in heads)}</tr></thead><tbody>"
    for judged in report:
        for number in judged.numbers.values():
            name = escape(f"{judged.claim.id}.{number.id}")
            ends = (number.low, number.high)
            interval = "" if None in ends else f"[{number.low:.6g}, {number.high:.6g}]"
            keys = [
                f'<a href="#r-{escape(key)}">{escape(key[:8])}</a>' for key in judged.keys(number)
            ]
            yield (
                f'<tr id="{name}"><td><code>{name}</code></td><td class="n">{number.value:.6g}</td>'
                f'<td class="n">{interval}</td><td>{escape(number.unit)}</td>'
                f"<td>{' '.join(keys) or escape(told.none)}</td></tr>"
            )
    yield "</tbody></table></details>"


def _records(report: Sequence[Judged], told: Interface) -> Iterator[str]:
    yield f"<details><summary>{escape(told.records)}</summary><p>{inline(told.records_text)}</p>"
    heads = "".join(f"<th>{escape(h)}</th>" for h in (told.key, told.kind, told.state, told.found))
    yield f"<table><thead><tr>{heads}</tr></thead><tbody>"
    found: dict[str, Record] = {r.key: r for judged in report for r in judged.records()}
    for key, record in found.items():
        values = json.dumps(record.values, ensure_ascii=False) if record.values else record.error
        shown = values if len(values) <= _MOST_SHOWN else f"{values[:_MOST_SHOWN]}..."
        yield (
            f'<tr id="r-{escape(key)}"><td><code>{escape(key)}</code></td>'
            f"<td>{escape(str(record.task['kind']))}<br><code>{escape(_config(record))}</code></td>"
            f"<td>{record.state}</td>"
            f"<td><code>{escape(shown)}</code></td></tr>"
        )
    yield "</tbody></table></details>"


def _config(record: Record) -> str:
    """Return what of a task is not the default, kinds included, as JSON."""
    changed = read_task(json.dumps(record.task)).model_dump(mode="json", exclude_defaults=True)
    return json.dumps(_with_kinds(record.task, changed), ensure_ascii=False)


def _with_kinds(whole: Any, changed: Any) -> Any:  # noqa: ANN401
    if not isinstance(whole, dict) or not isinstance(changed, dict):
        return changed
    kept = [name for name in whole if name == "kind" or name in changed]
    return {name: _with_kinds(whole[name], changed.get(name, whole[name])) for name in kept}
