"""A laboratory for GPT architectures.

    import assay

    config = assay.override(assay.RunConfig(), {"data.text": "my.txt", "model.norm": "layer"})
    run = assay.Run.create(config, "runs/first")
    for report in run.train():
        print(report.step, report.loss_nats)
    print(run.write("Once upon a time"))

Names are imported when they are first used, so that the command line starts without PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay.config import RunConfig as RunConfig
    from assay.errors import AssayError as AssayError
    from assay.generate import GenerateOptions as GenerateOptions
    from assay.nn.model import GPT as GPT
    from assay.nn.model import ModelConfig as ModelConfig
    from assay.runs.run import Run as Run
    from assay.sampling import SamplingConfig as SamplingConfig
    from assay.schema import decode as decode
    from assay.schema import override as override

_HOME = {
    "AssayError": "assay.errors",
    "GPT": "assay.nn.model",
    "GenerateOptions": "assay.generate",
    "ModelConfig": "assay.nn.model",
    "Run": "assay.runs.run",
    "RunConfig": "assay.config",
    "SamplingConfig": "assay.sampling",
    "decode": "assay.schema",
    "override": "assay.schema",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOME:
        raise AttributeError(f"module 'assay' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
