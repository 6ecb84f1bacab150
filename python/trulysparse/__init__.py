# SPDX-License-Identifier: BSD-3-Clause
"""Truly sparse neural network training on CPUs: absent weights are neither stored nor computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data import Dataset, load_dataset, load_digits, make_classification
    from .errors import (
        CheckpointError,
        ConfigError,
        DataError,
        DensityWarning,
        DivergenceError,
        PatternError,
        ShapeError,
        TrulySparseError,
    )
    from .model import (
        ERK,
        AllReLU,
        ErdosRenyi,
        FrozenMLP,
        Given,
        HeUniform,
        LeakyReLU,
        Linear,
        Normal,
        Pattern,
        ReLU,
        Sigmoid,
        SparseLayer,
        SparseMLP,
        Tanh,
        Uniform,
        Xavier,
        load,
    )
    from .optim import SGD, Adam, Constant, Cosine, MultiStep, StepDecay, Warmup
    from .topology import (
        DSR,
        MEST,
        SET,
        SNFS,
        ConstantDrop,
        CosineDrop,
        DeepR,
        DropAndGrow,
        ImportancePruning,
        LayerGradient,
        LinearDrop,
        Periodic,
        PowerDrop,
        RigL,
        RuleState,
        Signals,
        Static,
        Topology,
        TopologyDelta,
        register_topology,
    )
    from .trainer import BestModel, Callback, EarlyStopping, History, LambdaCallback, Trainer, TrainingInterrupted

    __version__: str

# Where each public name lives: imported at its first use, so that `import trulysparse` takes no time.
_HOMES = {
    "data": ("Dataset", "load_dataset", "load_digits", "make_classification"),
    "errors": (
        "CheckpointError",
        "ConfigError",
        "DataError",
        "DensityWarning",
        "DivergenceError",
        "PatternError",
        "ShapeError",
        "TrulySparseError",
    ),
    "model": (
        "AllReLU",
        "ERK",
        "ErdosRenyi",
        "FrozenMLP",
        "Given",
        "HeUniform",
        "LeakyReLU",
        "Linear",
        "Normal",
        "Pattern",
        "ReLU",
        "Sigmoid",
        "SparseLayer",
        "SparseMLP",
        "Tanh",
        "Uniform",
        "Xavier",
        "load",
    ),
    "optim": ("Adam", "Constant", "Cosine", "MultiStep", "SGD", "StepDecay", "Warmup"),
    "topology": (
        "DSR",
        "MEST",
        "SET",
        "SNFS",
        "ConstantDrop",
        "CosineDrop",
        "DeepR",
        "DropAndGrow",
        "ImportancePruning",
        "LayerGradient",
        "LinearDrop",
        "Periodic",
        "PowerDrop",
        "RigL",
        "RuleState",
        "Signals",
        "Static",
        "Topology",
        "TopologyDelta",
        "register_topology",
    ),
    "trainer": (
        "BestModel",
        "Callback",
        "EarlyStopping",
        "History",
        "LambdaCallback",
        "Trainer",
        "TrainingInterrupted",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DSR",
    "ERK",
    "MEST",
    "SET",
    "SGD",
    "SNFS",
    "Adam",
    "AllReLU",
    "BestModel",
    "Callback",
    "CheckpointError",
    "ConfigError",
    "Constant",
    "ConstantDrop",
    "Cosine",
    "CosineDrop",
    "DataError",
    "Dataset",
    "DeepR",
    "DensityWarning",
    "DivergenceError",
    "DropAndGrow",
    "EarlyStopping",
    "ErdosRenyi",
    "FrozenMLP",
    "Given",
    "HeUniform",
    "History",
    "ImportancePruning",
    "LambdaCallback",
    "LayerGradient",
    "LeakyReLU",
    "Linear",
    "LinearDrop",
    "MultiStep",
    "Normal",
    "Pattern",
    "PatternError",
    "Periodic",
    "PowerDrop",
    "ReLU",
    "RigL",
    "RuleState",
    "ShapeError",
    "Sigmoid",
    "Signals",
    "SparseLayer",
    "SparseMLP",
    "Static",
    "StepDecay",
    "Tanh",
    "Topology",
    "TopologyDelta",
    "Trainer",
    "TrainingInterrupted",
    "TrulySparseError",
    "Uniform",
    "Warmup",
    "Xavier",
    "__version__",
    "load",
    "load_dataset",
    "load_digits",
    "make_classification",
    "register_topology",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        value: Any = import_module("._kernels", __name__).build_info()["version"]
    elif name in _HOMES:
        value = import_module(f".{name}", __name__)
    elif name in _HOME_OF:
        value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
