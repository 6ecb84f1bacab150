# SPDX-License-Identifier: BSD-3-Clause
"""What a network is made of, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trulysparse.model.layer import SparseLayer

__all__ = ["LayerSummary", "Summary", "format_bytes", "summarize"]


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a `Summary`.

    Parameters
    ----------
    index
        0-based number of the layer.
    n_in, n_out
        Its shape.
    activation
        Kind, and slope below zero for a rectifier.
    connections
        How many weights exist.
    density
        Connections as a part of n_in * n_out.
    weights_bytes
        The values.
    index_bytes
        Where they are, by source.
    second_index_bytes
        The same by target, for the forward pass.
    bias_bytes
        The biases.
    activation_bytes
        What is trained in the activation.
    slope
        That of a rectifier if it is trained, as it is now; else None.
    """

    index: int
    n_in: int
    n_out: int
    activation: str
    connections: int
    density: float
    weights_bytes: int
    index_bytes: int
    second_index_bytes: int
    bias_bytes: int
    activation_bytes: int = 0
    slope: float | None = None

    @property
    def total_bytes(self) -> int:
        """All of the layer's bytes, optimizer state not included."""
        fixed = self.weights_bytes + self.index_bytes + self.second_index_bytes
        return fixed + self.bias_bytes + self.activation_bytes


@dataclass(frozen=True)
class Summary:
    """What a network is made of; prints as a table.

    Parameters
    ----------
    title
        First line.
    rows
        One a layer.
    """

    title: str
    rows: tuple[LayerSummary, ...]

    @property
    def connections(self) -> int:
        """Weights that exist, biases not included."""
        return sum(row.connections for row in self.rows)

    @property
    def cells(self) -> int:
        """Weights that the dense network of the same shape has."""
        return sum(row.n_in * row.n_out for row in self.rows)

    @property
    def density(self) -> float:
        """Connections as a part of the dense network's weights."""
        return self.connections / self.cells

    @property
    def biases(self) -> int:
        """Number of biases."""
        return sum(row.n_out for row in self.rows)

    @property
    def activation_parameters(self) -> int:
        """Number of values trained in activations."""
        return sum(row.activation_bytes for row in self.rows) // 4

    @property
    def total_bytes(self) -> int:
        """All bytes of all layers, optimizer state not included."""
        return sum(row.total_bytes for row in self.rows)

    def __str__(self) -> str:
        header = [
            "layer",
            "shape",
            "activation",
            "connections",
            "density",
            "weights",
            "index",
            "2nd index",
            "bias",
        ]
        table = [
            [
                str(row.index),
                f"{row.n_in} x {row.n_out}",
                row.activation,
                f"{row.connections:,}",
                _percent(row.density),
                format_bytes(row.weights_bytes),
                format_bytes(row.index_bytes),
                format_bytes(row.second_index_bytes),
                format_bytes(row.bias_bytes),
            ]
            for row in self.rows
        ]
        sums = [
            sum(getattr(row, name) for row in self.rows)
            for name in ("weights_bytes", "index_bytes", "second_index_bytes", "bias_bytes")
        ]
        total = [
            "total",
            "",
            "",
            f"{self.connections:,}",
            _percent(self.density),
            *(format_bytes(n) for n in sums),
        ]
        widths = [max(len(line[i]) for line in [header, *table, total]) for i in range(len(header))]
        left = (1, 2)

        def format_line(cells: Sequence[str]) -> str:
            padded = (
                c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
            )
            return "  ".join(padded).rstrip()

        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        tail = (
            f"{1 - self.density:.1%} of the {self.cells:,} weights of the dense network do not exist; "
            f"{format_bytes(self.total_bytes)} in all, {self.biases:,} biases"
        )
        if self.activation_parameters:
            tail += f", {self.activation_parameters:,} activation parameters"
        slopes = [f"{row.slope:.2f}" for row in self.rows if row.slope is not None]
        if slopes:
            tail += f"\nall_relu(auto): {', '.join(slopes)}"
        return "\n".join(
            [
                self.title,
                rule,
                format_line(header),
                rule,
                *map(format_line, table),
                rule,
                format_line(total),
                tail,
            ]
        )


def _percent(density: float) -> str:
    return "0 %" if density == 0 else f"{100 * density:.3g} %"


def format_bytes(n: int) -> str:
    """Return a number of bytes in the unit that suits it: ``"1.5 MiB"``."""
    value, units = float(n), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{n} B" if n < 1024 else f"{value:.1f} {units[0]}"


def _activation_text(activation: tuple[str, float]) -> str:
    kind, slope = activation
    return f"{kind} {slope:+.4g}" if kind == "rectifier" and slope else kind


def summarize(title: str, layers: Sequence[SparseLayer]) -> Summary:
    """Describe layers. The second index is counted whether or not it has been made yet."""
    rows = []
    for layer in layers:
        pattern, trained = layer.pattern, layer.activation_parameters
        offset_bytes = pattern.row_ptr.itemsize
        rows.append(
            LayerSummary(
                index=layer.index,
                n_in=layer.n_in,
                n_out=layer.n_out,
                activation=_activation_text(layer.activation),
                connections=layer.nnz,
                density=layer.density,
                weights_bytes=layer.values.nbytes,
                index_bytes=pattern.nbytes,
                second_index_bytes=0
                if layer.storage == "lean"
                else layer.nnz * (4 + offset_bytes) + (layer.n_out + 1) * offset_bytes,
                bias_bytes=layer.bias.nbytes,
                activation_bytes=sum(array.nbytes for array in trained.values()),
                slope=layer.activation[1] if trained and not layer.activation_apart else None,
            )
        )
    return Summary(title, tuple(rows))
