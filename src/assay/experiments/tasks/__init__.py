"""What the laboratory can compute, each told apart by its `kind`."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from assay.experiments.tasks.cost import CountedFlops, CountedMemory, Crossover, PassSeconds
from assay.experiments.tasks.initial import InitialPanel
from assay.experiments.tasks.inside import (
    DepthAtStart,
    LoseQKV,
    TrainedSoftmax,
    UntrainedSoftmax,
    WeightShapes,
)
from assay.experiments.tasks.kernels import (
    AttentionMemory,
    AttentionSeconds,
    KernelErrors,
    ModelEquality,
)
from assay.experiments.tasks.loss_parts import FewTokens, LossParts
from assay.experiments.tasks.norms import NormScales, NormSeconds
from assay.experiments.tasks.position import Answers, Order, PositionLoss
from assay.experiments.tasks.repeat import Repeat, RepeatPlain
from assay.experiments.tasks.task import Task as Task
from assay.experiments.tasks.text import ByPosition, Written
from assay.experiments.tasks.text_size import TextSize
from assay.experiments.tasks.train import Train

# A task joins the laboratory by being named here, twice, and nowhere else.
TASKS = (
    Train,
    InitialPanel,
    Answers,
    Order,
    PositionLoss,
    FewTokens,
    LossParts,
    Written,
    ByPosition,
    DepthAtStart,
    LoseQKV,
    NormScales,
    NormSeconds,
    TrainedSoftmax,
    UntrainedSoftmax,
    WeightShapes,
    CountedFlops,
    CountedMemory,
    Crossover,
    PassSeconds,
    AttentionMemory,
    AttentionSeconds,
    KernelErrors,
    ModelEquality,
    Repeat,
    RepeatPlain,
    TextSize,
)
AnyTask = Annotated[
    Train
    | InitialPanel
    | Answers
    | Order
    | PositionLoss
    | FewTokens
    | LossParts
    | Written
    | ByPosition
    | DepthAtStart
    | LoseQKV
    | NormScales
    | NormSeconds
    | TrainedSoftmax
    | UntrainedSoftmax
    | WeightShapes
    | CountedFlops
    | CountedMemory
    | Crossover
    | PassSeconds
    | AttentionMemory
    | AttentionSeconds
    | KernelErrors
    | ModelEquality
    | Repeat
    | RepeatPlain
    | TextSize,
    Field(discriminator="kind"),
]


def read_task(json: str) -> Task:
    """Return the task that `model_dump_json` wrote."""
    found: Task = TypeAdapter(AnyTask).validate_json(json)
    return found
