"""`assay import`: the weights of a PyTorch pickle, into a folder of JSON and safetensors."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.arguments import RunsFolder, build_config, tell_apart
from assay.cli.progress import words
from assay.cli.sanitize import printable
from assay.errors import CheckpointError

if TYPE_CHECKING:
    from assay.nn.model import ModelConfig

Config = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="RUN|FILE.toml", help="Of a bare state dict with assay's names."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Without words: the line on stdout alone.")]


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.pt", help="A file of torch.save.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    config: Config = None,
    as_json: AsJson = False,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Write the weights of a .pt or .bin file as config.json and model.safetensors.

    Understood are nanoGPT's ckpt.pt, a pytorch_model.bin beside its config.json,
    and a state dict with assay's own names. Nothing in the file is executed;
    what is taken and what is left is told.

    \b
    assay import out/ckpt.pt my-model
    assay import downloads/pytorch_model.bin my-model
    assay import weights.pt my-model --config shakespeare-1
    """  # noqa: D301
    from assay.hf import save_hf
    from assay.hf.torch_file import read_torch_file
    from assay.hf.torch_model import choose

    if folder.exists():
        raise CheckpointError(
            f"{folder}: there already; expected the name of a new folder. Nothing is written over."
        )
    candidate = choose(read_torch_file(file), file, _model_config(config, runs))
    taken = {
        name: tuple(tensor.shape)
        for name, tensor in candidate.taken.items()
        if name not in candidate.added
    }
    if not as_json:
        words.print(f"read as  {candidate.source}")
        for line in (*_taken_lines(taken), *_refused_lines(candidate.refused)):
            words.print(printable(line))
        if candidate.added:
            words.print(f"added    {len(candidate.added)} biases of zeros, the same as none")
    save_hf(candidate.build(), folder)
    row = {
        "file": str(file),
        "folder": str(folder),
        "source": candidate.source,
        "taken": taken,
        "added": sorted(candidate.added),
        "refused": dict(candidate.refused),
    }
    typer.echo(json.dumps(row))


def _model_config(given: str | None, runs: Path) -> "ModelConfig | None":
    """Return the architecture that a run or a config file names."""
    if given is None:
        return None
    if given.endswith(".toml"):
        return build_config(tell_apart([given]), None).model
    from assay.runs.folder import RunFolder

    return RunFolder.find(given, runs).read_config().model


def _taken_lines(taken: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yield a line for the tensors that are alike but for their layer."""
    alike = Counter((re.sub(r"\.\d+\.", ".N.", name), shape) for name, shape in taken.items())
    for (name, shape), count in alike.items():
        yield f"taken    {name} {shape}{f', {count} of them' if count > 1 else ''}"
    numbers = sum(math.prod(shape) for shape in taken.values())
    yield f"taken    {len(taken)} tensors in all, {numbers:,} numbers"


def _refused_lines(refused: Mapping[str, str]) -> Iterator[str]:
    for name, reason in refused.items():
        yield f"refused  {name}: {reason}"
