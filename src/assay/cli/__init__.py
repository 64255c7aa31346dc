"""The command line. PyTorch is imported inside commands, so that `assay --help` is instant."""

import io
import os
import re
import sys

import typer

from assay.cli import (
    ablate,
    bench,
    check,
    claims,
    count,
    data,
    diff,
    doctor,
    generate,
    import_,
    paper,
    resume,
    runs,
    show,
    train,
    verify,
)
from assay.cli.command import Command
from assay.cli.sanitize import escaped
from assay.cli.signals import Stopped, Unwinding
from assay.errors import AssayError, ConfigError

_NO_MEMORY = re.compile(r"allocate memory|out of memory|Storage size calculation overflowed")

app = typer.Typer(
    name="assay",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""A laboratory for GPT architectures: change one field, train, generate, look inside.

    Everything is a dotted field, and `assay show --fields` lists them all:
    `assay train my.txt model.norm=layer train.steps=2000`.
    """,
)
app.command(cls=Command)(train.train)
app.command(cls=Command)(resume.resume)
app.command(cls=Command)(generate.generate)
app.command(cls=Command)(show.show)
app.command(cls=Command)(count.count)
app.command(cls=Command)(ablate.ablate)
app.add_typer(claims.claims, name="claims")
app.command(cls=Command)(paper.paper)
app.command(cls=Command)(verify.verify)
app.add_typer(data.app, name="data")
app.command(cls=Command)(runs.runs)
app.command(cls=Command)(diff.diff)
app.command(cls=Command)(bench.bench)
app.command(cls=Command)(doctor.doctor)
app.add_typer(check.check, name="check")
app.command("import", cls=Command)(import_.import_)


def main() -> None:
    """Run the command line; an error is one line on stderr, with a traceback only on --debug.

    Exit status: 0 done, 1 a run, a text or a checkpoint failed, 2 usage or config, 130 Ctrl-C,
    143 terminated.
    """
    with Unwinding() as unwinding:
        try:
            try:
                _run_app()
            finally:
                unwinding.done = True
        except Stopped as stopped:
            status = stopped.status
        except BaseException:  # what an import made of the signal that came in it
            if not unwinding.status:
                raise
            status = unwinding.status
        else:
            return
        typer.echo("assay: interrupted.", err=True)
        sys.exit(status)


def _run_app() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal of few letters is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(args=arguments, prog_name="assay")
    except AssayError as error:
        if debug:
            raise
        typer.echo(f"assay: {escaped(str(error))}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except BrokenPipeError:  # `assay ... | head`
        _close_output()
        sys.exit(0)
    except (OSError, MemoryError, RuntimeError) as error:
        sentence = _of_the_machine(error)
        if debug or sentence is None:
            raise
        if isinstance(error, OSError) and error.filename is None:
            _close_output()
        typer.echo(f"assay: {escaped(sentence)}", err=True)
        sys.exit(1)


def _of_the_machine(error: Exception) -> str | None:
    """Return a sentence for a disk, a path or a memory that will not do; None for a bug."""
    if isinstance(error, OSError):
        return (
            f"{error.filename or 'standard output'}: {error.strerror or error}; expected what can "
            "be read or written. Check the name, its permissions and the room."
        )
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return (
            "not enough memory for a model and batch of this size; `assay count` with the same "
            "fields tells the model's share. Lower model.* or train.batch_size, or raise "
            "train.micro_batches."
        )
    return None


def _close_output() -> None:
    """Keep the interpreter from failing again when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
