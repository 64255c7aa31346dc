"""What a config leaves to the text: the vocabulary."""

from assay.config import RunConfig
from assay.data.prepare import prepare
from assay.schema import override


def settled(config: RunConfig) -> RunConfig:
    """Return the config with the vocabulary its run will have.

    Raises:
        DataError: If the text cannot be read.
    """
    if config.model.vocab_size is not None:
        return config
    return override(config, {"model.vocab_size": prepare(config.data).tokenizer.vocab_size})
