"""A report read back from its folder; a stranger may have written all of it.

Its files are found by walking the folder, and MANIFEST.json's names looked up among them. What is
unpacked is bounded as well as what is packed: docs/paper has 906 records of at most 19 KB, 2.5 MB
in all and 243,000 values, packed in 0.36 MB; ten times as much of each is taken, and more.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from assay.disk import (
    MARKS,
    count_marks,
    files_in,
    parse_json,
    read_bytes,
    read_json,
    sha256_of,
    unzipped_lines,
)
from assay.errors import RunError
from assay.experiments.claim import BUDGETS, Budget
from assay.experiments.evidence import Evidence, Record, unsealed
from assay.experiments.paper.folder import EVIDENCE, MANIFEST, REPORT
from assay.schema import Config, cut, decode, shown

_MOST_FILES = 1 << 12  # docs/paper has 123
_MOST_FILE_BYTES = 1 << 27  # of any file, which is hashed; the largest page has 3 MB
_MOST_BYTES = 1 << 22  # of report.json and MANIFEST.json, the first of which has 0.4 MB
_MOST_PACKED, _MOST_UNPACKED, _MOST_LINE = 1 << 23, 1 << 25, 1 << 20  # bytes of evidence
_MOST_RECORDS, _MOST_MARKS = 1 << 15, 1 << 21  # marks: at 90 bytes of memory each


class _Manifest(Config):
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]
    """SHA-256 of each file by its name."""


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A report as its folder holds it.

    Attributes:
        budget: At which its claims were run.
        claims: What `report.json` says of each claim, by its id.
        evidence: Every record.
    """

    budget: Budget
    claims: Mapping[str, Mapping[str, Any]]
    evidence: Evidence


def read_report(folder: Path) -> StoredReport:
    """Read a report, every file that its manifest names held to its hash.

    Raises:
        RunError: If there is no report, any of its files was changed, or it is not as it should be.
    """
    try:
        if not (folder / MANIFEST).is_file():
            raise RunError(
                f"{folder / MANIFEST}: not found; expected a report's folder, as `assay paper` and "
                "`assay claims run` write it."
            )
        _check_files(folder)
        budget, claims = _read_claims(folder / REPORT)
        return StoredReport(budget, claims, Evidence(_read_evidence(folder / EVIDENCE)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{folder}: no report that can be read ({cut(reason)}).") from None


def _check_files(folder: Path) -> None:
    """Hold every file that the manifest names to its hash."""
    there = files_in(folder, _MOST_FILES)
    try:
        named = decode(_Manifest, read_json(there[MANIFEST], _MOST_BYTES)).files
    except ValueError as error:
        raise ValueError(f"{MANIFEST}: {str(error).rstrip('.')}") from None
    for name in (REPORT, EVIDENCE, *named):
        if name not in named:
            raise ValueError(f"{MANIFEST}: no SHA-256 of {name} found; expected that of every file")
        if name not in there:
            raise RunError(
                f"{folder}: {shown(name)} named by {MANIFEST}, and no such file found; expected "
                "the files that were written. Put it back, or write the report anew."
            )
    for name, expected in named.items():
        if (found := sha256_of(there[name], _MOST_FILE_BYTES)) != expected:
            raise RunError(
                f"{there[name]}: changed since the report was written: SHA-256 {found[:16]}... "
                f"found, {expected[:16]}... in {MANIFEST}. Put it back, or write the report anew."
            )


def _read_claims(path: Path) -> tuple[Budget, Mapping[str, Mapping[str, Any]]]:
    """Return budget and claims; the rest of each is compared with what is judged anew."""
    report = parse_json(read_bytes(path, _MOST_BYTES), marks=MARKS)
    budget = next((budget for budget in BUDGETS if budget == report.get("budget")), None)
    if budget is None:
        raise ValueError(
            f"{REPORT}: budget {shown(report.get('budget'))} found; expected one of "
            f"{', '.join(BUDGETS)}"
        )
    stored = report.get("claims")
    if not isinstance(stored, list):
        raise ValueError(f"{REPORT}: claims {shown(stored)} found; expected a list")
    claims: dict[str, Mapping[str, Any]] = {}
    for each in stored:
        name = each.get("id") if isinstance(each, dict) else None
        if not isinstance(name, str) or name in claims:
            raise ValueError(
                f"{REPORT}: claim {shown(each)} found; expected objects, each with an id of its own"
            )
        claims[name] = each
    return budget, claims


def _read_evidence(path: Path) -> Iterator[Record]:
    """Yield the records, none of which is taken before its seal fits."""
    left = _MOST_MARKS
    lines = unzipped_lines(path, packed=_MOST_PACKED, unpacked=_MOST_UNPACKED, line=_MOST_LINE)
    for number, line in enumerate(lines, start=1):
        left -= count_marks(line)
        if number > _MOST_RECORDS or left < 0:
            raise ValueError(
                f"{EVIDENCE}: over {_MOST_RECORDS} records or {_MOST_MARKS} values found; "
                "expected fewer"
            )
        try:
            record = unsealed(parse_json(line, marks=MARKS))
        except ValueError as error:
            raise RunError(
                f"{path}, line {number}: {error}. Put the file back, or write the report anew."
            ) from None
        yield record
