"""The plain C interface of the kernels in ctypes: the structs and functions of `abi.h`.

Nothing is called before the sizes of all structs are compared with those that the library was
compiled with. Every function returns a status, and what went wrong becomes an exception.
"""

from ctypes import (
    CDLL,
    POINTER,
    Structure,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_uint64,
    c_void_p,
    sizeof,
)
from typing import Any, Protocol

from assay.errors import AssayError


class Matrix(Structure):
    """`struct Matrix` of abi.h, where meanings are told; so are the others."""

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
    """Kind and weights of a normalisation, and where its gradients go."""

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
    """A matrix that Muon updates."""

    _fields_ = (
        *((name, c_void_p) for name in ("weight", "mean", "gradient")),
        *((name, c_int32) for name in ("rows", "columns")),
        *((name, c_float) for name in ("momentum", "kept", "rate")),
    )


class GradientOf(Structure):
    """The gradient of one tensor."""

    _fields_ = (("gradient", c_void_p), ("count", c_int64))


class UpdateOf(Structure):
    """A tensor of weights, its state, and how it is updated."""

    _fields_ = (
        *((name, c_void_p) for name in ("weight", "mean", "square", "step")),
        *((name, c_double) for name in ("lr", "beta1", "beta2", "eps", "decay")),
    )


class ProductJob(Structure):
    """One product of matrices in float32, with operands of one precision and layout."""

    _fields_ = (
        *((name, c_void_p) for name in ("a", "b", "c")),
        *((name, c_int32) for name in ("m", "n", "k")),
        *((name, c_int32) for name in ("bf16", "a_transposed", "b_in_rows", "accumulate")),
    )


_STRUCTS: tuple[type[Structure], ...] = (
    Matrix,
    Norm,
    Layer,
    Program,
    Entries,
    TrainedNorm,
    TrainedLinear,
    TrainedLayer,
    TrainedModel,
    TrainingJob,
    MatrixOf,
    GradientOf,
    UpdateOf,
    ProductJob,
)
"""In the order of abi.h, in which the library tells their sizes."""

_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "assay_pass": (POINTER(Program), POINTER(Entries)),
    "assay_pack": (c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int32),
    "assay_read": (c_void_p, c_int64, c_int32, POINTER(c_double)),
    "assay_threads": (c_int32, POINTER(c_int32)),
    "assay_product": (POINTER(ProductJob),),
    "assay_pass_new": (POINTER(TrainedModel), c_int32, c_int32, POINTER(c_void_p)),
    "assay_train": (c_void_p, POINTER(TrainingJob), c_int32),
    "assay_train_apart": (POINTER(c_void_p), c_int32, POINTER(TrainingJob), c_int32),
    "assay_muon": (POINTER(MatrixOf), c_int32, c_float, c_int32, c_int32),
    "assay_norm": (POINTER(GradientOf), c_int32, c_int32, POINTER(c_double)),
    "assay_adamw": (POINTER(UpdateOf), POINTER(GradientOf), c_int32, c_float, c_int32),
}
"""Those that return a status, with their arguments."""


class _Function(Protocol):
    __name__: str


def declare(library: CDLL) -> CDLL:
    """Tell ctypes what the functions of a library take, once its structs are known to be ours.

    Raises:
        OSError: If it is of another version of this code, or lacks a function.
    """
    try:
        n_structs = c_int32.in_dll(library, "assay_struct_sizes").value
        known = n_structs == len(_STRUCTS)
        sizes = (
            (c_int32 * (1 + len(_STRUCTS))).in_dll(library, "assay_struct_sizes") if known else ()
        )
        if list(sizes)[1:] != [sizeof(struct) for struct in _STRUCTS]:
            raise OSError("its structs have other sizes; it was compiled from another version")
        for name, arguments in _FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, c_int32
            function.errcheck = _check_status
        for name in ("assay_bf16_products", "assay_lanes"):
            function = getattr(library, name)
            function.argtypes, function.restype = (), c_int32
        library.assay_pass_free.argtypes, library.assay_pass_free.restype = (c_void_p,), None
    except (AttributeError, ValueError) as error:  # a symbol that is not there
        raise OSError(f"not a library of these kernels ({error})") from None
    return library


def _check_status(status: int, function: "_Function", arguments: tuple[object, ...]) -> None:
    """Raise what `enum Status` of team.h says; nothing was changed by the call then.

    Raises:
        MemoryError: If there was not enough of it.
        AssayError: If anything else was thrown.
    """
    if status == 1:
        raise MemoryError(f"not enough memory for {function.__name__} of the C++ kernels")
    if status:
        raise AssayError(
            f"{function.__name__}: the C++ kernels failed with status {status}. Set "
            "train.backend=torch, and run `assay doctor --kernels`."
        )
