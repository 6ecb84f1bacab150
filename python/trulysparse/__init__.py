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
    from .instruments import (
        Flops,
        GradientFlow,
        GradientFlowProbe,
        MaskSimilarity,
        Monitor,
        flops,
        gradient_flow,
        mask_similarity,
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
        PReLU,
        ReLU,
        Sigmoid,
        SparseLayer,
        SparseMLP,
        SReLU,
        Tanh,
        Uniform,
        Xavier,
        load,
        small_dense,
    )
    from .optim import SGD, Adam, Constant, Cosine, MultiStep, StepDecay, Warmup
    from .topology import (
        GMP,
        SET,
        SNIP,
        ConstantDrop,
        CosineDrop,
        DropAndGrow,
        DropSchedule,
        GradualPruning,
        GraNet,
        ImportancePruning,
        LayerGradient,
        LinearDrop,
        Periodic,
        PowerDrop,
        RigL,
        RuleState,
        Signals,
        Static,
        TopKAST,
        Topology,
        TopologyDelta,
        register_topology,
        rewire,
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
    "instruments": (
        "Flops",
        "GradientFlow",
        "GradientFlowProbe",
        "MaskSimilarity",
        "Monitor",
        "flops",
        "gradient_flow",
        "mask_similarity",
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
        "PReLU",
        "Pattern",
        "ReLU",
        "SReLU",
        "Sigmoid",
        "SparseLayer",
        "SparseMLP",
        "Tanh",
        "Uniform",
        "Xavier",
        "load",
        "small_dense",
    ),
    "optim": ("Adam", "Constant", "Cosine", "MultiStep", "SGD", "StepDecay", "Warmup"),
    "topology": (
        "GMP",
        "SET",
        "SNIP",
        "ConstantDrop",
        "CosineDrop",
        "DropAndGrow",
        "DropSchedule",
        "GraNet",
        "GradualPruning",
        "ImportancePruning",
        "LayerGradient",
        "LinearDrop",
        "Periodic",
        "PowerDrop",
        "RigL",
        "RuleState",
        "Signals",
        "Static",
        "TopKAST",
        "Topology",
        "TopologyDelta",
        "register_topology",
        "rewire",
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
    "ERK",
    "GMP",
    "SET",
    "SGD",
    "SNIP",
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
    "DensityWarning",
    "DivergenceError",
    "DropAndGrow",
    "DropSchedule",
    "EarlyStopping",
    "ErdosRenyi",
    "Flops",
    "FrozenMLP",
    "Given",
    "GraNet",
    "GradientFlow",
    "GradientFlowProbe",
    "GradualPruning",
    "HeUniform",
    "History",
    "ImportancePruning",
    "LambdaCallback",
    "LayerGradient",
    "LeakyReLU",
    "Linear",
    "LinearDrop",
    "MaskSimilarity",
    "Monitor",
    "MultiStep",
    "Normal",
    "PReLU",
    "Pattern",
    "PatternError",
    "Periodic",
    "PowerDrop",
    "ReLU",
    "RigL",
    "RuleState",
    "SReLU",
    "ShapeError",
    "Sigmoid",
    "Signals",
    "SparseLayer",
    "SparseMLP",
    "Static",
    "StepDecay",
    "Tanh",
    "TopKAST",
    "Topology",
    "TopologyDelta",
    "Trainer",
    "TrainingInterrupted",
    "TrulySparseError",
    "Uniform",
    "Warmup",
    "Xavier",
    "__version__",
    "flops",
    "gradient_flow",
    "load",
    "load_dataset",
    "load_digits",
    "make_classification",
    "mask_similarity",
    "register_topology",
    "rewire",
    "small_dense",
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
