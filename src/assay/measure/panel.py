r"""The panel at step 0: is this untrained model what an untrained model should be?

Logits of an untrained model are independent of the target. If they are normal with variance s² over
the vocabulary, the loss is ln V + s²/2 and the entropy ln V - s²/2 (both from the moment generating
function of a normal variable). A loss near ln V therefore says that the logits are narrow, nothing
more; a loss far above it says how wide they are or that the model is sure of the wrong thing.

Shapes: B sequences, T tokens, V vocabulary. Losses and entropies are in nats.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from assay.nn.head import at_least_float32
from assay.nn.model import GPT

_ALARM_NATS = 0.25  # GPT-2's own initialisation starts within 0.2 nats of ln V
_SURE_FACTOR = 20.0  # p(current token) over 1/V at which a model counts as echoing its input


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """What a model says before its first step.

    Attributes:
        loss_nats: Mean cross-entropy of the targets.
        uniform_nats: ln V, the loss of a uniform guess.
        logit_variance: s², over the vocabulary, mean over tokens.
        entropy_nats: Mean entropy of the predictions.
        p_current: Mean probability given to the token just read.
        sees_future: Whether a change of the last token changed an earlier prediction.
    """

    loss_nats: float
    uniform_nats: float
    logit_variance: float
    entropy_nats: float
    p_current: float
    sees_future: bool

    @property
    def law_nats(self) -> float:
        """The loss that the variance of the logits predicts, ln V + s²/2."""
        return self.uniform_nats + self.logit_variance / 2

    @property
    def words(self) -> list[str]:
        """What is wrong, in sentences; empty when nothing is."""
        return [
            sentence
            for wrong, sentence in (
                (self.sees_future, _FUTURE),
                (self.loss_nats < self.uniform_nats - _ALARM_NATS, _KNOWS.format(self)),
                (self._echoes, _ECHO.format(self)),
                (self._is_wide and not self._echoes, _WIDE.format(self)),
            )
            if wrong
        ]

    @property
    def _echoes(self) -> bool:
        return self.p_current > _SURE_FACTOR * math.exp(-self.uniform_nats) and self._is_wide

    @property
    def _is_wide(self) -> bool:
        return not self.loss_nats <= self.uniform_nats + _ALARM_NATS


_FUTURE = (
    "The model sees the future: changing the last token changed a prediction made before it. Its "
    "loss will mean nothing."
)
_KNOWS = (
    "The loss of {0.loss_nats:.2f} is below ln V = {0.uniform_nats:.2f}: an untrained model knows "
    "something about the targets. Look for targets that are not shifted."
)
_ECHO = (
    "The model repeats its input: the current token gets p = {0.p_current:.3f} and the loss of "
    "{0.loss_nats:.2f} is far above ln V = {0.uniform_nats:.2f}. A wide embedding that is also the "
    "output matrix does this. Use model.init=gpt2, or model.tie_embeddings=false; "
    "model.logit_scale=inv_sqrt_d narrows the logits but leaves the echo."
)
_WIDE = (
    "The loss of {0.loss_nats:.2f} is above ln V = {0.uniform_nats:.2f}: the logits are wide "
    "(variance {0.logit_variance:.2f}, for which ln V + s²/2 = {0.law_nats:.2f}). Use a "
    "smaller model.init.std or a model.logit_scale."
)


@torch.inference_mode()
def initial_panel(model: GPT, tokens: Int[Tensor, "B T1"]) -> Panel:
    """Return the panel of `model` on a batch; dropout is off, and the mode restored."""
    was_training = model.training
    model.eval()
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    logits = at_least_float32(model(inputs))
    log_p = logits.log_softmax(-1)
    current = log_p.gather(-1, inputs[..., None])
    panel = Panel(
        loss_nats=float(F.nll_loss(log_p.flatten(0, 1), targets.flatten())),
        uniform_nats=math.log(logits.shape[-1]),
        logit_variance=float(logits.var(-1, unbiased=False).mean()),
        entropy_nats=float(-(log_p.exp() * log_p).sum(-1).mean()),
        p_current=float(current.exp().mean()),
        sees_future=_sees_future(model, inputs, logits),
    )
    model.train(was_training)
    return panel


def _sees_future(model: GPT, inputs: Tensor, logits: Tensor) -> bool:
    changed = inputs.clone()
    changed[:, -1] = (changed[:, -1] + 1) % logits.shape[-1]
    return not torch.equal(at_least_float32(model(changed))[:, :-1], logits[:, :-1])
