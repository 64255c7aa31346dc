"""The structs of `decoding.h`, `training.h` and `adamw.cpp`; meanings are told there."""

from ctypes import POINTER, Structure, c_double, c_float, c_int32, c_int64, c_uint64, c_void_p


class Matrix(Structure):
    """`struct Matrix` of decoding.h; so are the others."""

    _fields_ = (
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("n_out", c_int32),
        ("n_in", c_int32),
        ("kind", c_int32),
    )


class Norm(Structure):
    """Kind and weights of a normalisation."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("eps", c_float), ("kind", c_int32))


class Layer(Structure):
    """Weights of one block, and where its keys and values are."""

    _fields_ = (
        *((name, Norm) for name in ("mixer_norm", "mlp_norm", "q_norm", "k_norm")),
        *((name, Matrix) for name in ("q", "k", "v", "out", "gate", "up", "down")),
        ("keys", c_void_p),
        ("values", c_void_p),
    )


class Program(Structure):
    """A model."""

    _fields_ = (
        ("layers", POINTER(Layer)),
        *((name, c_void_p) for name in ("slopes", "cos", "sin")),
        *((name, Norm) for name in ("embed_norm", "final_norm")),
        ("head", Matrix),
        *((name, c_float) for name in ("head_factor", "soft_cap")),
        *((name, c_int32) for name in ("n_layers", "d_model", "n_heads", "n_groups", "d_head")),
        *((name, c_int32) for name in ("d_ff", "window", "room", "n_pairs")),
        *((name, c_int32) for name in ("block", "activation", "gated", "n_threads")),
    )


class Entries(Structure):
    """What one pass reads, and where its logits go."""

    _fields_ = (
        *((name, c_void_p) for name in ("row", "position", "x", "wanted", "logits")),
        ("count", c_int32),
        ("n_wanted", c_int32),
    )


_WEIGHTS = tuple((name, c_void_p) for name in ("weight", "bias", "d_weight", "d_bias"))


class TrainedNorm(Structure):
    """`struct TrainedNorm` of training.h; so are those below."""

    _fields_ = (*_WEIGHTS, ("eps", c_float), ("kind", c_int32))


class TrainedLinear(Structure):
    """A linear layer and where its gradients go."""

    _fields_ = (*_WEIGHTS, ("n_out", c_int32), ("n_in", c_int32))


class TrainedLayer(Structure):
    """One block."""

    _fields_ = (
        *((name, TrainedNorm) for name in ("mixer_norm", "mlp_norm", "q_norm", "k_norm")),
        *((name, TrainedLinear) for name in ("q", "k", "v", "out", "gate", "up", "down")),
    )


class TrainedModel(Structure):
    """A model, its gradients and the shape of a batch."""

    _fields_ = (
        ("layers", POINTER(TrainedLayer)),
        *((name, TrainedNorm) for name in ("embed_norm", "final_norm")),
        *((name, c_void_p) for name in ("embed", "d_embed")),
        ("head", TrainedLinear),
        *((name, c_void_p) for name in ("added", "d_added", "slopes", "cos", "sin")),
        *((name, c_float) for name in ("head_factor", "soft_cap")),
        *((name, c_int32) for name in ("n_layers", "d_model", "n_heads", "n_groups", "d_head")),
        *((name, c_int32) for name in ("d_ff", "vocab", "window", "n_pairs")),
        *((name, c_int32) for name in ("block", "activation", "gated", "tied")),
        *((name, c_int32) for name in ("n_rows", "seq_len")),
    )


class TrainingJob(Structure):
    """A batch, what is asked of it, and the loss that was found."""

    _fields_ = (
        ("model", POINTER(TrainedModel)),
        ("tokens", c_void_p),
        ("scale", c_float),
        ("add", c_int32),
        ("loss", c_double),
        ("losses", c_void_p),
        ("seed", c_uint64),
        ("dropout", c_float),
        ("mixer_dropout", c_float),
    )


class MatrixOf(Structure):
    """`struct MatrixOf` of muon.cpp."""

    _fields_ = (
        *((name, c_void_p) for name in ("weight", "mean", "gradient")),
        *((name, c_int32) for name in ("rows", "columns")),
        *((name, c_float) for name in ("momentum", "kept", "rate")),
    )


class GradientOf(Structure):
    """`struct GradientOf` of adamw.cpp; so is the other."""

    _fields_ = (("gradient", c_void_p), ("count", c_int64))


class UpdateOf(Structure):
    """A tensor of weights, its state, and how it is updated."""

    _fields_ = (
        *((name, c_void_p) for name in ("weight", "mean", "square", "step")),
        *((name, c_double) for name in ("lr", "beta1", "beta2", "eps", "decay")),
    )
