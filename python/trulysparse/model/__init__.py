# SPDX-License-Identifier: BSD-3-Clause
"""The network: patterns, layers, how they start, what they compute, and their files."""

from trulysparse.model.activations import (
    Activation,
    AllReLU,
    LeakyReLU,
    Linear,
    PReLU,
    ReLU,
    Sigmoid,
    SReLU,
    Tanh,
    get_activation,
)
from trulysparse.model.compaction import Compaction
from trulysparse.model.dense_baseline import small_dense, small_dense_sizes
from trulysparse.model.density import ERK, Density, ErdosRenyi, Given, Uniform, get_density
from trulysparse.model.frozen import FrozenLayer, FrozenMLP
from trulysparse.model.inference import Evaluation
from trulysparse.model.init import HeUniform, Initializer, Normal, Xavier, get_initializer
from trulysparse.model.inputs import Inputs, InputScaling
from trulysparse.model.layer import SparseLayer
from trulysparse.model.losses import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError, get_loss
from trulysparse.model.mlp import SparseMLP
from trulysparse.model.pattern import Pattern
from trulysparse.model.receptive import ReceptiveFields
from trulysparse.model.serialize import load, read_tensors, write_tensors
from trulysparse.model.summary import LayerSummary, Summary

__all__ = [
    "ERK",
    "Activation",
    "AllReLU",
    "BinaryCrossEntropy",
    "Compaction",
    "CrossEntropy",
    "Density",
    "ErdosRenyi",
    "Evaluation",
    "FrozenLayer",
    "FrozenMLP",
    "Given",
    "HeUniform",
    "Initializer",
    "InputScaling",
    "Inputs",
    "LayerSummary",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MeanSquaredError",
    "Normal",
    "PReLU",
    "Pattern",
    "ReLU",
    "ReceptiveFields",
    "SReLU",
    "Sigmoid",
    "SparseLayer",
    "SparseMLP",
    "Summary",
    "Tanh",
    "Uniform",
    "Xavier",
    "get_activation",
    "get_density",
    "get_initializer",
    "get_loss",
    "load",
    "read_tensors",
    "small_dense",
    "small_dense_sizes",
    "write_tensors",
]
