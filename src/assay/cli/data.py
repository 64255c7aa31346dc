"""`assay data`: prepare a text and say what it is; show what a run read in a step."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

import typer
from typer.core import TyperGroup

from assay.cli.arguments import Arguments, RunsFolder, build_config, tell_apart
from assay.cli.command import Command
from assay.cli.progress import preparing
from assay.cli.resume import RunName
from assay.cli.sanitize import escaped
from assay.errors import ConfigError

if TYPE_CHECKING:
    from assay.checks.batch import Batch
    from assay.data.prepare import Dataset

_TEXT = "text"


@final
class _TextByDefault(TyperGroup):
    """A group in which what names none of its commands is a text: `assay data my.txt`.

    A text with the name of a command is reached by a path: `./show`.
    """

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: Any = None,  # noqa: ANN401
        **extra: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Parse as the command `text` what begins with no other command's name."""
        if args and args[0] in self.commands.keys() - {_TEXT}:
            return super().make_context(info_name, args, parent, **extra)
        return self.commands[_TEXT].make_context(info_name, args, parent, **extra)


app = typer.Typer(cls=_TextByDefault, help="Read, split and encode a text; show what a run read.")


@app.command(_TEXT, cls=Command)
def data(
    arguments: Arguments = None,
    entropy: Annotated[
        bool,
        typer.Option("--entropy", help="Also H(token) and H(next | current), the bigram floor."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Read, split and encode a text as `assay train` would, and show what comes out.

    What a run read in one step is another command: see `assay data show --help`.

    \b
    assay data
    assay data my_book.txt data.tokenizer.vocab_size=8192
    assay data 'corpus/*.jsonl.zst' data.json_field=body --json
    """  # noqa: D301
    config = build_config(tell_apart(arguments), None)

    from assay.data.prepare import prepare

    with preparing() as told:
        dataset = prepare(config.data, progress=told)
    summary = dataset.summary
    if entropy:
        summary = summary | _entropies(dataset)
    if as_json:
        sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
        return
    for name, value in _flat(summary):
        sys.stdout.write(f"{name:22} {value}\n")


@app.command(cls=Command)
def show(
    run: RunName,
    step: Annotated[int, typer.Option(help="Counted from 1.")],
    row: Annotated[int | None, typer.Option(min=0, help="One row alone, from 0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Ids and hash too, in one line.")] = False,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Show the exact text that a run reads in a step; refused if the text changed since.

    On a terminal, characters that could steer it are shown as escapes.

    assay data show RUN --step 500 [--row 2] [--json]
    """
    from assay.checks.batch import batch_of
    from assay.runs.run import Run

    with preparing() as told:
        batch = batch_of(Run.open(run, root=runs), step, progress=told)
    if row is not None and row >= len(batch.texts):
        raise ConfigError(f"--row: {row} found; expected 0 to {len(batch.texts) - 1}.")
    rows = range(len(batch.texts)) if row is None else [row]
    if as_json:
        sys.stdout.write(json.dumps(_as_row(batch, step, rows)) + "\n")
        return
    for number in rows:
        text = batch.texts[number]
        headline = f"--- row {number} of {len(batch.texts)}, {batch.tokens.shape[1]} tokens\n"
        safe = escaped(text, keep="\n\t") if sys.stdout.isatty() else text
        sys.stdout.write(headline * (row is None) + safe + "\n")


def _as_row(batch: "Batch", step: int, rows: "range | list[int]") -> dict[str, Any]:
    tokens = batch.tokens.tolist()
    shown = [{"row": n, "text": batch.texts[n], "tokens": tokens[n]} for n in rows]
    return {"step": step, "batch_sha256": batch.sha256, "rows": shown}


def _flat(summary: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield f"{prefix}{name}", f"{value:.4f}"
        else:
            listed = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{prefix}{name}", listed or "-"


def _entropies(dataset: "Dataset") -> dict[str, float]:
    """Return what a model of no context, and of one token of context, cannot do better than."""
    from assay.measure.bigram import bigram_floor_nats, entropy_nats

    ids = dataset.val.ids
    return {"val_entropy_nats": entropy_nats(ids), "val_bigram_floor_nats": bigram_floor_nats(ids)}
