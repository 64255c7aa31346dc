"""Every error a user can cause.

    AssayError                exit status 1
    ├── ConfigError           2: a config file, an override or a field value is wrong
    │   └── NoReferenceError  a variant has no formula in float64 to compare with
    ├── DataError             a text or a tokenizer is missing, unreadable or of another hash
    ├── RunError              a run folder is missing, busy, already there or cannot be written
    ├── CheckpointError       a checkpoint is missing, corrupt or of another config
    └── DivergedError         a loss or a gradient stopped being a finite number

A message has four parts: the place, the value found, what is allowed, and what to do. The command
line prints it as one line without a traceback. `assert` is for the library's own invariants only.
"""


class AssayError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(AssayError, ValueError):
    """A config file, an override or a field value is wrong."""


class NoReferenceError(ConfigError):
    """A variant has no formula in float64 to compare with."""


class DataError(AssayError):
    """A text, a dataset or a tokenizer is missing, unreadable or of another hash."""


class RunError(AssayError):
    """A run folder is missing, busy, already there or cannot be written."""


class CheckpointError(AssayError):
    """A checkpoint is missing, corrupt or of another config."""


class DivergedError(AssayError):
    """A loss or a gradient stopped being a finite number; nothing was updated with it."""
