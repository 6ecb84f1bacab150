# SPDX-License-Identifier: BSD-3-Clause
"""Arithmetic that a network takes: by the accounting of the RigL paper, and as the kernels do it."""

from __future__ import annotations

from dataclasses import dataclass

from trulysparse.model import SparseMLP
from trulysparse.topology import Static, Topology

__all__ = ["Flops", "flops"]


@dataclass(frozen=True)
class Flops:
    """FLOPs for one sample. A multiplication and an addition are two; biases and activations are not counted.

    Attributes
    ----------
    inference : float
        Forward pass through the connections.
    dense_inference : float
        Forward pass through a dense network of the same sizes.
    training : float
        A training step on average over a run that ends with this network, by the accounting of Evci et al. 2020
        (arXiv:1911.11134, appendix H): forward, twice as much backward, and what the topology rule adds.
    dense_training : float
        Three dense forward passes.
    kernels : float
        What the kernels do for the network itself in a training step: three forward passes, less the delta of the
        inputs, which nobody needs. What a rule looks at or explores besides is not in it.
    """

    inference: float
    dense_inference: float
    training: float
    dense_training: float
    kernels: float

    @property
    def training_ratio(self) -> float:
        """Training beside dense training."""
        return self.training / self.dense_training if self.dense_training else 0.0


def flops(net: SparseMLP, topology: Topology | None = None) -> Flops:
    """Count the FLOPs of one sample through `net` as it is now.

    Parameters
    ----------
    net : SparseMLP
    topology : Topology, optional
        Whose training is counted; default static.
    """
    sparse = 2.0 * net.connections
    dense = 2.0 * sum(layer.n_in * layer.n_out for layer in net.layers)
    rule = Static() if topology is None else topology
    return Flops(
        inference=sparse,
        dense_inference=dense,
        training=rule.training_flops(sparse, dense),
        dense_training=3.0 * dense,
        kernels=3.0 * sparse - 2.0 * net.layers[0].nnz,
    )
