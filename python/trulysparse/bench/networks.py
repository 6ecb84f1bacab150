# SPDX-License-Identifier: BSD-3-Clause
"""Networks that are trained whole: trulysparse, and PyTorch with dense, masked and rivals' layers."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trulysparse.bench.cases import EPSILON
from trulysparse.bench.rivals import OURS, NotOffered, find_rivals
from trulysparse.bench.rivals.base import DENSE_LIMIT_BYTES
from trulysparse.engine import Engine, Evolution, evolve_network
from trulysparse.errors import DensityWarning
from trulysparse.model import AllReLU, Given, HeUniform, Inputs, InputScaling, Pattern, SparseMLP
from trulysparse.model.density import ErdosRenyi
from trulysparse.optim import SGD
from trulysparse.topology import SET

__all__ = ["NETWORKS", "TRAINERS", "Data", "Network", "TorchTrainer", "TrulySparseTrainer", "make_trainers"]

# The rate is small enough for the dense networks too, whose first outputs are large.
SLOPE, DROPOUT, LR, MOMENTUM = 0.6, 0.3, 0.001, 0.9


@dataclass(frozen=True)
class Network:
    """A network of the paper and the size of its data.

    Attributes
    ----------
    name : str
    sizes : tuple of int
    samples : int
    batch : int
    """

    name: str
    sizes: tuple[int, ...]
    samples: int
    batch: int = 128

    @property
    def steps(self) -> int:
        """Training steps of an epoch."""
        return self.samples // self.batch

    @functools.cached_property
    def patterns(self) -> tuple[Pattern, ...]:
        """The connections, the same for all contestants."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DensityWarning)  # the last layer is full, and known to be
            return tuple(ErdosRenyi(EPSILON).patterns(self.sizes, 0))


NETWORKS = {
    net.name: net
    for net in (
        Network("fashion_mnist", (784, 1000, 1000, 1000, 10), 60_000),
        Network("cifar10", (3072, 4000, 1000, 4000, 10), 50_000),
    )
}


class Data:
    """Artificial images of a network's size, uint8, whose classes can be learned.

    Parameters
    ----------
    network : Network
    X, y : ndarray, optional
        Real data instead; the first `samples` of them.
    """

    def __init__(self, network: Network, X: Any = None, y: Any = None) -> None:
        if X is None:
            random = np.random.default_rng(1)
            classes = network.sizes[-1]
            y = random.integers(classes, size=network.samples)
            templates = random.integers(40, 160, size=(classes, network.sizes[0]), dtype=np.uint8)
            X = templates[y]
            X += random.integers(0, 96, size=X.shape, dtype=np.uint8)
        self.X: NDArray[Any] = np.ascontiguousarray(X[: network.samples])
        self.y: NDArray[np.int64] = np.asarray(y[: network.samples], dtype=np.int64)
        self.scaling = InputScaling.fit(self.X)
        self.order: NDArray[np.int64] = np.random.default_rng(2).permutation(len(self.X)).astype(np.int64)


class TrulySparseTrainer:
    """trulysparse's own training step.

    Attributes
    ----------
    losses : list of float
        Mean loss of every step.
    """

    name: ClassVar[str] = OURS

    def __init__(self, network: Network, data: Data, threads: int) -> None:
        self.network, self.data = network, data
        self.losses: list[float] = []
        net = SparseMLP(
            network.sizes, density=Given(network.patterns), activation=AllReLU(SLOPE), dropout=DROPOUT,
            init="he_uniform", seed=0, threads=threads,
        )  # fmt: skip
        self.threads = threads
        self.engine = Engine(net, SGD(lr=LR, momentum=MOMENTUM, weight_decay=2e-4), seed=0, threads=threads)
        self.inputs = Inputs(data.X, network.sizes[0], data.scaling)
        self.targets = net.loss.check_targets(data.y, network.sizes[-1], "y")

    def step(self) -> None:
        """Train on one batch."""
        rows = batch_rows(self.data, self.network, len(self.losses))
        loss, _ = self.engine.train_batch(self.inputs, self.targets, rows, LR)
        self.losses.append(loss / rows.size)

    def evolve(self) -> Evolution:
        """Make one evolution of the whole network."""
        return evolve_network(
            self.engine.net, self.engine.state, topology=SET(), pruning=None, seed=0, threads=self.threads
        )


class TorchTrainer:
    """A PyTorch training loop; subclasses say what a sparse layer is.

    Layers without a missing connection (the outputs) are `torch.nn.Linear` for everyone.

    Attributes
    ----------
    losses : list of float
        Mean loss of every step.
    """

    name: ClassVar[str]

    def __init__(self, network: Network, data: Data, threads: int) -> None:
        import torch

        torch.manual_seed(0)
        self.network, self.data = network, data
        self.losses: list[float] = []
        self.X, self.y = torch.from_numpy(data.X), torch.from_numpy(data.y)
        self.shift, self.factor = (torch.from_numpy(a.copy()) for a in (data.scaling.shift, data.scaling.factor))
        largest = max(4 * n_in * n_out for n_in, n_out in pairwise(network.sizes))
        if largest > DENSE_LIMIT_BYTES:
            raise NotOffered(f"a dense matrix takes {largest / 1e9:,.0f} GB")
        modules: list[Any] = []
        init = HeUniform()
        for index, pattern in enumerate(network.patterns):
            weights = pattern.to_scipy(init.draw(pattern, seed=0, layer=index)).toarray().T  # (n_out, n_in)
            dense = torch.from_numpy(np.ascontiguousarray(weights))
            full = pattern.nnz == pattern.n_in * pattern.n_out
            modules.append(_dense_layer(dense) if full else self.layer(dense, pattern))
            if index < len(network.patterns) - 1:
                modules += [_all_relu(SLOPE if index % 2 else -SLOPE), torch.nn.Dropout(DROPOUT)]
        self.model = torch.nn.Sequential(*modules)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LR, momentum=MOMENTUM, fused=True)
        self.loss = torch.nn.CrossEntropyLoss()

    def layer(self, weights: Any, pattern: Pattern) -> Any:
        """Return a module for weights (n_out, n_in), zero where there is no connection."""
        raise NotImplementedError

    def step(self) -> None:
        """Train on one batch."""
        import torch

        rows = torch.from_numpy(batch_rows(self.data, self.network, len(self.losses)))
        x = (self.X[rows].to(torch.float32) - self.shift) * self.factor
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.model(x), self.y[rows])
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())


class DenseTrainer(TorchTrainer):
    """All weights exist."""

    name = "torch-dense"

    def layer(self, weights: Any, pattern: Pattern) -> Any:
        import torch

        linear = torch.nn.Linear(pattern.n_in, pattern.n_out)
        with torch.no_grad():
            torch.nn.init.kaiming_uniform_(linear.weight)
            linear.bias.zero_()
        return linear


class MaskedTrainer(TorchTrainer):
    """Full matrices, multiplied by a mask in every step."""

    name = "torch-masked"

    def layer(self, weights: Any, pattern: Pattern) -> Any:
        import torch

        class Masked(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(weights)
                self.bias = torch.nn.Parameter(torch.zeros(pattern.n_out))
                self.register_buffer("mask", (weights != 0).to(torch.float32))

            def forward(self, x: Any) -> Any:
                return torch.nn.functional.linear(x, self.weight * self.mask, self.bias)

        return Masked()


class SparseLabTrainer(TorchTrainer):
    """`sparselab.SparseLinear` with our connections."""

    name = "sparselab"

    def layer(self, weights: Any, pattern: Pattern) -> Any:
        import torch
        from sparselab import SparseLinear, layout

        module = SparseLinear(pattern.n_in, pattern.n_out, sparsity=1 - pattern.density)
        module._csr = layout.from_dense(weights)
        module._values = torch.nn.Parameter(torch.from_numpy(np.asarray(module._csr.values)))
        with torch.no_grad():
            module.bias.zero_()
        return module


class SparsePropTrainer(TorchTrainer):
    """`sparseprop.modules.SparseLinear` with our connections."""

    name = "sparseprop"

    def layer(self, weights: Any, pattern: Pattern) -> Any:
        import torch
        from sparseprop.modules import SparseLinear

        return SparseLinear(weights, bias=torch.nn.Parameter(torch.zeros(pattern.n_out)))


TRAINERS: dict[str, type[TorchTrainer]] = {
    trainer.name: trainer for trainer in (DenseTrainer, MaskedTrainer, SparseLabTrainer, SparsePropTrainer)
}


def make_trainers(
    network: Network, data: Data, threads: int, rivals: Sequence[str]
) -> dict[str, TrulySparseTrainer | TorchTrainer]:
    """Build a network with trulysparse and with every rival that trains networks, of those named."""
    trainers: dict[str, TrulySparseTrainer | TorchTrainer] = {OURS: TrulySparseTrainer(network, data, threads)}
    found, _ = find_rivals([name for name in rivals if name in TRAINERS])
    for name in found:
        trainers[name] = TRAINERS[name](network, data, threads)
    return trainers


def batch_rows(data: Data, network: Network, step: int) -> NDArray[np.int64]:
    """Return the samples of a step; after an epoch the order repeats."""
    first = step % network.steps * network.batch
    return data.order[first : first + network.batch]


def _dense_layer(weights: Any) -> Any:
    import torch

    linear = torch.nn.Linear(weights.shape[1], weights.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weights)
        linear.bias.zero_()
    return linear


def _all_relu(slope: float) -> Any:
    import torch

    return torch.nn.LeakyReLU(slope)
