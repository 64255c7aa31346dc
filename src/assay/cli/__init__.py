"""The command line. PyTorch is imported inside commands, so that `assay --help` is instant."""

import os
import sys

import typer

from assay.cli import count, data, generate, resume, runs, show, train
from assay.errors import AssayError, ConfigError

app = typer.Typer(
    name="assay",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""A laboratory for GPT architectures: change one field, train, generate, look inside.

    Everything is a dotted field: `assay train my.txt model.norm=layer train.steps=2000`.
    `assay show --fields` lists them all.
    """,
)
app.command()(train.train)
app.command()(resume.resume)
app.command()(generate.generate)
app.command()(show.show)
app.command()(count.count)
app.command()(data.data)
app.command()(runs.runs)


def main() -> None:
    """Run the command line; an error is one line on stderr, with a traceback only on --debug.

    Exit status: 0 done, 1 a run, a text or a checkpoint failed, 2 usage or config, 130 Ctrl-C,
    143 terminated.
    """
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(args=arguments, prog_name="assay")
    except AssayError as error:
        if debug:
            raise
        typer.echo(f"assay: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        typer.echo("assay: interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `assay ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
