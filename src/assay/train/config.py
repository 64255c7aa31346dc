"""What a training run does, apart from the model and the text."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from assay.schema import Config
from assay.train.optim import MuonConfig, OptimizerConfig
from assay.train.schedule import CosineConfig, ScheduleConfig

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class TrainConfig(Config):
    """One training run. Lengths and amounts are in tokens, sequences or steps, as the name says."""

    seed: Seed = 0
    """Initial weights, order of the data, dropout: each a function of this and of nothing else."""
    steps: PositiveInt = 500
    """Optimizer steps."""
    seq_len: PositiveInt | None = None
    """Tokens of context in training. Null: model.max_seq_len."""
    batch_size: Annotated[int, Field(gt=0, le=1 << 20)] = 8
    """Sequences in a step."""
    micro_batches: PositiveInt = 1
    """Pieces a batch is cut into to save memory; divides batch_size."""
    exact_rows: PositiveInt | None = None
    """Exact mode: sequences whose gradient is computed at once. Such grains are summed in a fixed
    tree, so that every number of micro_batches gives the same bits. Null: fast mode."""
    optimizer: OptimizerConfig = MuonConfig()
    """What turns gradients into updates."""
    schedule: ScheduleConfig = CosineConfig()
    """How the learning rate goes over the steps."""
    clip_norm: PositiveFloat | None = 1.0
    """Bound on the norm of all gradients together. Null: none."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What follows a loss or gradient that is not finite: the end, or no update in that step; after
    10 skipped steps in a row the end all the same."""
    backend: Literal["auto", "torch", "native", "graphs"] = "auto"
    """What computes loss and gradients of a step: PyTorch, C++ kernels (CPU), or PyTorch recorded
    as a CUDA graph. Auto: PyTorch, unless a timing at the start of a long run finds the kernels
    faster."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 is autocast over float32 weights. Auto: bf16 on a CUDA device that has it, else fp32,
    unless a timing at the start of a long run on a CPU finds bf16 faster."""
    attention: Literal["auto", "fused", "blocks", "flex"] = "auto"
    """PyTorch's fused kernel, products over blocks of queries, or FlexAttention (CUDA). Auto:
    fused, unless a timing at the start of a long run finds another faster."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether layers go through torch.compile. Auto: off, unless a run is long enough to earn the
    compilation back and a timing finds it faster."""
    recompute: bool = False
    """Whether a layer's activations are computed again in the backward pass, to save memory."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps. Auto: cuda, else mps, else cpu."""
    log_every: PositiveInt = 1
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every: NonNegativeInt = 100
    """Steps between two checkpoints; 0 keeps only the last."""
    keep_checkpoints: PositiveInt = 2
    """How many of the newest checkpoints stay, beside the best."""
    tensorboard: bool = False
    """Whether metrics also go to RUN/tensorboard (needs assay[board])."""

    @model_validator(mode="after")
    def _settings_of_pytorch(self) -> "TrainConfig":
        asked = {"attention": self.attention, "compile": self.compile, "recompute": self.recompute}
        for name, value in asked.items():
            if self.backend == "native" and value not in ("auto", "off", False):
                raise ValueError(
                    f"{name}: {value} found, which is how PyTorch takes a step; expected none with "
                    "backend = native. Leave it out, or set backend = torch."
                )
        return self

    @model_validator(mode="after")
    def _recordable(self) -> "TrainConfig":
        if self.backend == "graphs" and self.exact_rows is not None:
            raise ValueError(
                f"exact_rows: {self.exact_rows} found, whose sums are not recorded; expected null "
                "with backend = graphs. Leave it out, or set backend = torch."
            )
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> "TrainConfig":
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"micro_batches: {self.micro_batches} found; expected a divisor of batch_size = "
                f"{self.batch_size}."
            )
        rows = self.batch_size // self.micro_batches
        if self.exact_rows and rows % self.exact_rows:
            raise ValueError(
                f"exact_rows: {self.exact_rows} found; expected a divisor of the sequences of a "
                f"micro-batch, batch_size / micro_batches = {rows}."
            )
        return self


class EvalConfig(Config):
    """How a model is judged while it trains."""

    every: PositiveInt = 100
    """Steps between two evaluations."""
    max_tokens: PositiveInt | None = 32_768
    """Targets of the fixed validation set used while training, spread evenly. Null: all."""
    final_max_tokens: PositiveInt | None = None
    """The same for the evaluation after the last step. Null: the whole validation split."""
