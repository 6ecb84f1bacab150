# SPDX-License-Identifier: BSD-3-Clause
"""What trulysparse raises. Every message says what, where, got, allowed and what to do next."""


class TrulySparseError(Exception):
    """Base of all errors that trulysparse raises on purpose."""


class ShapeError(TrulySparseError, ValueError):
    """Array shapes that do not fit the network or each other."""


class DataError(TrulySparseError, ValueError):
    """Samples or labels that cannot be trained on: NaN, out of range, empty, unreadable."""


class ConfigError(TrulySparseError, ValueError):
    """A setting that is unknown, of the wrong type or out of range."""


class PatternError(TrulySparseError, ValueError):
    """A sparsity pattern that is unsorted, out of range or cannot be held."""


class CheckpointError(TrulySparseError):
    """A model or checkpoint file that is missing, truncated, foreign or of another version."""


class DivergenceError(TrulySparseError, ArithmeticError):
    """The loss or the weights stopped being finite numbers."""


class ParallelError(TrulySparseError):
    """Ranks that cannot work together: no MPI, too few processes, no room, or one of them failed."""


class DensityWarning(UserWarning):
    """A layer was given fewer connections than asked for, because it has no room for them."""


class ScheduleWarning(UserWarning):
    """What was asked for will not happen in a run of this length."""


class ParallelWarning(UserWarning):
    """Ranks that work together, but slower than this machine allows."""
