"""What a run is: plain, frozen, nested data with no behaviour but its own validation."""

from typing import Self

from pydantic import model_validator

from assay.data.config import DataConfig
from assay.nn.model import ModelConfig
from assay.sampling import SamplingConfig
from assay.schema import Config
from assay.train.config import EvalConfig, TrainConfig


class RunConfig(Config):
    """Everything needed to repeat a run, apart from the text itself."""

    model: ModelConfig = ModelConfig()
    """The architecture."""
    data: DataConfig = DataConfig()
    """The text, its split and its tokenizer."""
    train: TrainConfig = TrainConfig()
    """Steps, optimizer, schedule, precision."""
    eval: EvalConfig = EvalConfig()
    """When and on how much the model is judged."""
    sampling: SamplingConfig = SamplingConfig()
    """How the samples in the run folder are drawn, and the default of `assay generate`."""

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        if self.seq_len > self.model.max_seq_len:
            raise ValueError(
                f"train.seq_len: {self.seq_len} found; expected at most model.max_seq_len = "
                f"{self.model.max_seq_len}."
            )
        return self

    @property
    def seq_len(self) -> int:
        """Tokens of context in training, resolved."""
        return self.train.seq_len or self.model.max_seq_len
