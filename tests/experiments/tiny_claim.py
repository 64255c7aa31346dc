"""A claim of a second or two: that eight steps of training are better than one, and the panel."""

from small_study import FIELDS

from assay.config import RunConfig
from assay.experiments.claim import Claim, Figure, Judgement, Number, Part, Table
from assay.experiments.tasks.initial import InitialPanel
from assay.experiments.tasks.train import Train
from assay.presets import nanogpt_char
from assay.schema import override


def training(path, seed, steps):
    chosen = {"train.precision": "fp32", "train.attention": "fused", "train.compile": "off"}
    own = {"data.text": str(path), "train.seed": seed, "train.steps": steps}
    return Train(run=override(RunConfig(), FIELDS | chosen | own))


def panel():
    model = override(nanogpt_char(), {"vocab_size": 20, "d_model": 16, "n_layers": 1})
    return InitialPanel(model=model, draws=2, sequences=2, seq_len=8)


def claim_on(path):
    """A claim whose words are borrowed from one that has the same ids."""

    def arms():
        return {steps: [training(path, seed, steps) for seed in (0, 1)] for steps in (1, 8)}

    def tasks(budget, evidence):
        first = [panel(), *arms()[1]]
        known = all(task in evidence for task in first)
        return [*first, *(arms()[8] if known else [])]  # a second round

    def judge(budget, evidence):
        short, long = (evidence.values(runs, "val_loss_nats") for runs in arms().values())
        gain = [a - b for a, b in zip(short, long, strict=True)]
        runs = [task for each in arms().values() for task in each]
        numbers = (
            Number.mean("low", gain, of=runs),
            Number("high", evidence[panel()].values["loss_nats"][0], of=(panel(),)),
            *(
                Number(name, 0.5)
                for name in ("gpt2_small", "gpt2_small_of_tied", "gpt2_xl", "char")
            ),
        )
        row = ("tiny", "20", "16", numbers[0], numbers[1])
        columns = ("model", "vocab", "depth", "of_untied", "of_tied")
        rows = (
            {"depth": 1, "saving": 0.5, "vocab": "V"},
            {"depth": 2, "saving": 0.4, "vocab": "V"},
        )
        return Judgement(
            "confirmed" if min(gain) > 0 else "refuted",
            (Part("range", "confirmed"), Part("count", "confirmed")),
            numbers,
            (Table("savings", columns, (row,)),),
            (Figure("region", "lines", rows, "depth", "saving", "vocab"),),
        )

    return Claim("tying-parameters", "2.3", tasks, judge)
