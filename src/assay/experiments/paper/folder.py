"""A report's folder: what is in it, and how it is written; `stored` reads it back.

REPORT/
    report.json         budget, verdicts, every number under its id, what it stands on
    evidence.jsonl.gz   every record, whole
    report.en.html report.en.md report.vi.html report.vi.md
    figures/ tables/ numbers.csv
    MANIFEST.json       SHA-256 of every file above
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from assay.disk import sha256_of
from assay.errors import RunError
from assay.experiments.charts import draw
from assay.experiments.claim import Budget, Claim
from assay.experiments.evidence import Evidence, Record
from assay.experiments.figure import svg
from assay.experiments.markup import csv_table, latex_table
from assay.experiments.paper.interface import interface
from assay.experiments.paper.judged import Judged, judge_all
from assay.experiments.paper.page import html
from assay.experiments.paper.text import cells, markdown, number_rows
from assay.experiments.words import LANGUAGES, words_of
from assay.experiments.written import seal
from assay.schema import cut

REPORT, EVIDENCE, MANIFEST = "report.json", "evidence.jsonl.gz", "MANIFEST.json"


def write_report(
    folder: Path, claims: Sequence[Claim], budget: Budget, evidence: Evidence
) -> list[Judged]:
    """Judge the claims and write the whole report, a pure function of the evidence.

    Raises:
        RunError: If the folder cannot be written.
    """
    report = judge_all(claims, budget, evidence)
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        (folder / "tables").mkdir(exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)  # until every file is there
        written = {}
        for name, content in _files(report, budget):
            (folder / name).write_bytes(content)
            written[name] = sha256_of(folder / name)
        text = json.dumps({"files": written}, indent=1) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"{folder}: the report could not be written ({error.strerror or error}). What was "
            "computed is kept; make room or permission, then give the same command."
        ) from None
    return report


def facts(evidence: Evidence, budget: Budget) -> str:
    """Return a line on how the evidence was made."""
    made = {
        f"{_of(record, 'machine', 'device_name')}, {_of(record, 'machine', 'threads')} thread, "
        f"torch {_of(record, 'packages', 'torch')}"
        for record in evidence
    }
    ended = max((str(record.made.get("started", "-"))[:10] for record in evidence), default="-")
    return f"{budget}; {len(evidence)} records; {'; '.join(sorted(made)) or '-'}; {ended}"


def _of(record: Record, part: str, name: str) -> str:
    return cut(str(record.made.get(part, {}).get(name, "-")))


def _files(report: Sequence[Judged], budget: Budget) -> Iterator[tuple[str, bytes]]:
    known = {record.key: record for judged in report for record in judged.records()}
    evidence = Evidence(known.values())
    stored = {"budget": budget, "claims": [judged.as_json() for judged in report]}
    yield REPORT, (json.dumps(stored, indent=1, ensure_ascii=False) + "\n").encode()
    yield EVIDENCE, packed(evidence)
    yield "numbers.csv", csv_table(number_rows(report, interface("en"))).encode()
    for language in LANGUAGES:
        line = f"{interface(language).budget}: {facts(evidence, budget)}"
        yield f"report.{language}.md", markdown(report, language).encode()
        yield f"report.{language}.html", html(report, language, line).encode()
    for judged in report:
        yield from _drawn(judged)


def _drawn(judged: Judged) -> Iterator[tuple[str, bytes]]:
    """Yield figures in both languages, tables in one."""
    name = judged.claim.id
    for language in LANGUAGES:
        words = words_of(name, language)
        for figure in judged.judgement.figures:
            spec = draw(figure, words.figures[figure.id])
            yield f"figures/{name}.{figure.id}.{language}.svg", svg(spec).encode()
    for table in judged.judgement.tables:
        rows = cells(table, words_of(name, "en"), interface("en"))
        yield f"tables/{name}.{table.id}.csv", csv_table(rows).encode()
        yield f"tables/{name}.{table.id}.tex", latex_table(rows).encode()


def packed(evidence: Evidence) -> bytes:
    """Return all records, a sealed line each; the same records give the same bytes."""
    lines = []
    for record in sorted(evidence, key=lambda record: record.key):
        content = record.model_dump(mode="json")
        lines.append(json.dumps({"record": content, "sha256": seal(content)}))
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)
