"""Table and figure of the claim on what tying saves."""

from collections.abc import Callable, Mapping

from assay.count import tying_saving
from assay.experiments.claim import Figure, Number, Table
from assay.nn.model import ModelConfig

_VOCABULARIES = (1_024, 8_192, 50_257, 128_256)
_DEPTHS = [2**n for n in range(4, 18)]  # L·d, from 16 to 131,072


def savings_table(models: Mapping[str, ModelConfig]) -> Table:
    """Return what each model saves, of the untied count and of the tied one."""
    rows = tuple(
        (
            name,
            f"{model.vocab:,}",
            f"{model.n_layers * model.d_model:,}",
            Number(f"untied_{place}", tying_saving(model).share_of_untied),
            Number(f"tied_{place}", tying_saving(model).share_of_tied),
        )
        for place, (name, model) in enumerate(models.items())
    )
    columns = ("model", "vocab", "depth", "of_untied", "of_tied")
    return Table("savings", columns, rows, {"of_untied": ".1%", "of_tied": ".1%"})


def region_figure(share: Callable[[int, float], float], low: float, high: float) -> Figure:
    """Draw the saving over L·d for each vocabulary, with the range it is held to."""
    rows = tuple(
        {"depth": depth, "saving": share(vocab, depth), "vocab": f"V = {vocab:,}"}
        for vocab in _VOCABULARIES
        for depth in _DEPTHS
    )
    rules = (("y", low), ("y", high))
    return Figure("region", "lines", rows, "depth", "saving", "vocab", log="x", rules=rules)
