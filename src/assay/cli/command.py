"""What every command has: `--plugin FILE.py`, which runs a file of the user's before all else."""

from pathlib import Path
from typing import Annotated, Any, final

import typer
from typer.core import TyperCommand


def _load(paths: list[Path] | None) -> None:
    if paths:
        from assay.plugin import load

        for path in paths:
            load(path)


def _with_plugin(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            "--plugin",
            metavar="FILE.py",
            help="Run this file of yours, whose variants can then be named; repeatable.",
            callback=_load,
            is_eager=True,
            expose_value=False,
        ),
    ] = None,
) -> None:
    """Have the option."""


_options = typer.Typer(add_completion=False)
_options.command()(_with_plugin)
_PLUGIN = typer.main.get_command(_options).params[0]


@final
class Command(TyperCommand):
    """A command with `--plugin`; the kinds of that file can then be named like assay's own."""

    def __init__(self, *args: Any, params: list[Any] | None = None, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*args, params=[*(params or []), _PLUGIN], **settings)
