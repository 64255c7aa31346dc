"""`assay diff`: what is not the same in two runs."""

import json
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.arguments import RunsFolder
from assay.cli.resume import RunName
from assay.cli.sanitize import escaped

if TYPE_CHECKING:
    from assay.runs.diff import Difference

_CONTEXT = 60  # letters shown of a sample from where the two part


def diff(
    first: RunName,
    second: RunName,
    as_json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Name every difference of two runs: config, size, data, code, machine, result, sample.

    Exit status 0 if there is none, else 1, as `diff` has it.

    \b
    assay diff shakespeare-1 shakespeare-2
    assay diff first lab/cells/b1458354669b52f7e088be29ca730f58 --json
    """  # noqa: D301
    from assay.runs.diff import differences
    from assay.runs.run import Run

    found = list(differences(Run.open(first, root=runs), Run.open(second, root=runs)))
    for each in found:
        line = json.dumps(asdict(each), ensure_ascii=False) if as_json else _line(each)
        typer.echo(line)
    raise typer.Exit(1 if found else 0)


def _line(found: "Difference") -> str:
    if found.part == "sample":
        texts = [found.first or "", found.second or ""]
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
        first, second = (repr(escaped(text[same : same + _CONTEXT])) for text in texts)
        return f"{found.part:9} {f'parts after {same} letters':28} {first} | {second}"
    return f"{found.part:9} {found.name:28} {_shown(found.first)} | {_shown(found.second)}"


def _shown(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.10g}"
    return escaped(str(value))[:80]
