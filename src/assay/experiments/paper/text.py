"""A report as Markdown, and the rows of its tables."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from assay.experiments.claim import Number, Table
from assay.experiments.markup import Rows, markdown_table, plain
from assay.experiments.paper.interface import Interface, interface
from assay.experiments.paper.judged import Judged
from assay.experiments.words import ClaimWords, Language, words_of


def markdown(report: Sequence[Judged], language: Language) -> str:
    """Return the whole report."""
    told = interface(language)
    lines = [f"# {told.title}", "", told.abstract, "", f"## {told.summary}", ""]
    lines += [*markdown_table(summary_rows(report, language)), ""]
    for heading, group in groupby(report, key=lambda judged: told.heading(judged.claim)):
        lines += [f"## {heading}", ""]
        for judged in group:
            lines += _claim(judged, language, told)
    return "\n".join(lines) + "\n"


def summary_rows(report: Sequence[Judged], language: Language) -> Rows:
    """Return a row for each claim: section, sentence, verdict."""
    told = interface(language)
    rows = [[told.section, told.claim, told.verdict]]
    for judged in report:
        sentence = words_of(judged.claim.id, language).claim
        rows.append([judged.claim.section, sentence, told.verdicts[judged.judgement.verdict]])
    return rows


def cells(table: Table, words: ClaimWords, told: Interface) -> Rows:
    """Return a table of a claim as text under its headings."""
    named = words.tables[table.id].columns
    head = [named[column] for column in table.columns]
    specs = [table.spec.get(column, ".4g") for column in table.columns]
    return [
        head,
        *(
            [
                format(cell, spec) if isinstance(cell, Number) else told.cell(cell)
                for cell, spec in zip(row, specs, strict=True)
            ]
            for row in table.rows
        ),
    ]


def number_rows(report: Iterable[Judged], told: Interface) -> Rows:
    """Return every number under its id, unrounded."""
    rows = [[told.number, told.value, told.interval, told.unit, told.tasks]]
    for judged in report:
        for number in judged.numbers.values():
            ends = (number.low, number.high)
            interval = "" if None in ends else f"[{number.low:.6g}, {number.high:.6g}]"
            keys = judged.keys(number)
            of = ", ".join(key[:12] for key in keys[:3]) + (f" + {len(keys) - 3}" * (len(keys) > 3))
            name = f"{judged.claim.id}.{number.id}"
            rows.append([name, f"{number.value:.6g}", interval, number.unit, of or told.none])
    return rows


def _claim(judged: Judged, language: Language, told: Interface) -> Iterator[str]:
    words, verdicts = words_of(judged.claim.id, language), told.verdicts
    yield from [f"### {words.title}: {verdicts[judged.judgement.verdict]}", ""]
    if words.quote:
        yield from [f"> {told.quote}: “{words.quote}”", ""]
    yield from [
        f"**{told.claim}.** {words.claim}",
        "",
        f"**{told.protocol}.** {words.protocol}",
        "",
    ]
    if judged.judgement.parts:
        yield from [f"**{told.findings}**", ""]
    for part in judged.judgement.parts:
        sentence = words.parts[part.id].format_map(judged.numbers)
        yield f"* *{verdicts[part.verdict]}*: {sentence}"
    yield ""
    for figure in judged.judgement.figures:
        path = f"figures/{judged.claim.id}.{figure.id}.{language}.svg"
        yield from [f"![{words.figures[figure.id].title}]({path})", ""]
    for table in judged.judgement.tables:
        yield from [f"*{words.tables[table.id].title}*", ""]
        yield from [*markdown_table(cells(table, words, told)), ""]
    if words.discussion:
        text = words.discussion.format_map(judged.numbers)
        yield from [f"**{told.discussion}.** {text}", ""]
    yield from [f"**{told.limits}.** {words.limits}", ""]
    if judged.claim.sources:
        cited = plain("; ".join(map(str, judged.claim.sources)))
        yield from [f"**{told.sources}.** {cited}", ""]
    rows = number_rows([judged], told)
    if len(rows) > 1:
        yield from [f"<details><summary>{told.numbers}</summary>", ""]
        yield from [*markdown_table(rows), "", "</details>", ""]
