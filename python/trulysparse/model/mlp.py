# SPDX-License-Identifier: BSD-3-Clause
"""The network: a stack of truly sparse layers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, Self, overload

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import CheckpointError, ConfigError, TrulySparseError
from trulysparse.model.activations import Activation, get_activation
from trulysparse.model.compaction import Compaction, compact
from trulysparse.model.density import Density, ErdosRenyi, Given, get_density
from trulysparse.model.frozen import FrozenMLP
from trulysparse.model.inference import Stage
from trulysparse.model.init import Initializer, get_initializer
from trulysparse.model.inputs import InputScaling
from trulysparse.model.layer import LINEAR, SparseLayer
from trulysparse.model.losses import Loss, default_loss, get_loss
from trulysparse.model.memory import check_fits
from trulysparse.model.pattern import Pattern
from trulysparse.model.predictor import Predictor
from trulysparse.model.registry import check_integer, check_number, check_seed, nearest
from trulysparse.model.summary import Summary, summarize
from trulysparse.model.tensors import Converted, described, take

__all__ = ["SparseMLP"]

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]

DEFAULT_EPSILON = 20.0
_INDEX_MAX = 2**31 - 1


class SparseMLP(Predictor):
    """A multilayer perceptron whose missing weights are neither stored nor computed.

    Hidden layers apply `activation`, then dropout; the output layer is linear, its loss applies softmax or
    sigmoid.

    Parameters
    ----------
    sizes
        Neurons of every layer, inputs first, outputs last: at least two positive numbers.
    epsilon
        Short for ``density=ErdosRenyi(epsilon)``. At most one of the two may be given; with neither, epsilon
        is 20.
    density
        How many connections there are: the global density as a number in (0, 1] (distributed by `ERK`), an
        object such as ``Uniform(0.1)`` or ``Given([...])``, or its configuration.
    activation
        Of the hidden layers: an object, a name ("relu", "leaky_relu", "all_relu", "prelu", "srelu", "sigmoid",
        "tanh", "linear") or a configuration such as ``{"name": "all_relu", "alpha": 0.6}``.
    dropout
        Part of each hidden layer's units that a training step leaves out, in [0, 1): one number, or one for
        each hidden layer. Rounded to a multiple of 1/65536.
    init
        First weights: "he_uniform", "xavier", "normal", an object such as ``HeUniform(fan_in="sparse")``, or
        a configuration. Biases start at zero.
    loss
        "cross_entropy", "binary_cross_entropy" or "mse" (regression). None: cross-entropy for two outputs or
        more, binary cross-entropy for one.
    seed
        Of pattern and weights, in [0, 2**64).
    threads
        What methods use when they are not told; None means all cores this process may use.

    Attributes
    ----------
    layers : tuple of SparseLayer
    activation, density, init, loss, seed, threads
        As given, as objects.
    dropout : float or tuple of float
        As given.
    scaling : InputScaling or None
        If set (a trainer does), methods take raw features and scale them batch by batch.

    Raises
    ------
    ConfigError
        An argument that is unknown, of the wrong type or out of range.

    Warns
    -----
    DensityWarning
        `epsilon` asks for more connections than a layer has room for.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        epsilon: float | None = None,
        density: float | Density | Mapping[str, Any] | None = None,
        activation: Activation | str | Mapping[str, Any] = "relu",
        dropout: float | Sequence[float] = 0.0,
        init: Initializer | str | Mapping[str, Any] = "he_uniform",
        loss: Loss | str | Mapping[str, Any] | None = None,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        checked = _check_sizes(sizes)
        if epsilon is not None and density is not None:
            raise ConfigError(f"give epsilon or density, not both: got epsilon={epsilon!r} and density={density!r}")
        if density is None:
            density = ErdosRenyi(DEFAULT_EPSILON if epsilon is None else epsilon)
        self._settle(checked, get_density(density), activation, dropout, init, loss, seed, threads)
        check_fits(checked, self.density.expected_connections(checked))
        patterns = self.density.patterns(checked, self.seed, self.threads)
        values = [
            self._initializer(layer, len(patterns)).draw(pattern, seed=self.seed, layer=layer, threads=self.threads)
            for layer, pattern in enumerate(patterns)
        ]
        parameters = [
            self.activation.draw_parameters(n, seed=self.seed, layer=layer, threads=self.threads)
            for layer, n in enumerate(checked[1:-1])
        ]
        self._fill(patterns, values, [_kernels.aligned_zeros(n) for n in checked[1:]], parameters)

    def _settle(
        self,
        sizes: tuple[int, ...],
        density: Density,
        activation: object,
        dropout: object,
        init: object,
        loss: object,
        seed: object,
        threads: object,
    ) -> None:
        """Check and keep every argument but the layers themselves."""
        self.density = density
        self.activation = get_activation(activation)
        self.dropout, self.dropout_thresholds = _check_dropout(dropout, len(sizes) - 2)
        self.init = get_initializer(init)
        self.loss = default_loss(sizes[-1]) if loss is None else get_loss(loss)
        self.loss.check_outputs(sizes[-1])
        self.seed = check_seed(seed)
        self.threads = None if threads is None else check_integer(threads, "threads", low=1)
        self.scaling: InputScaling | None = None
        self._classes: list[str | int] | None = None

    def _initializer(self, index: int, count: int) -> Initializer:
        """Return the initialiser of one of `count` layers, which may depend on its activation and dropout."""
        if not self.init.follows_layer:
            return self.init
        if index == count - 1:
            return self.init.for_layer(1.0)
        rate = self.dropout[index] if isinstance(self.dropout, tuple) else self.dropout
        return self.init.for_layer(self.activation.second_moment(index + 1) / (1.0 - rate))

    def _fill(
        self,
        patterns: Sequence[Pattern],
        values: Sequence[F32],
        biases: Sequence[F32],
        parameters: Sequence[Mapping[str, F32]],
    ) -> None:
        last = len(patterns) - 1
        self.layers: tuple[SparseLayer, ...] = tuple(
            SparseLayer(
                index,
                pattern,
                w,
                b,
                LINEAR if index == last else self.activation.resolve(index + 1),
                self._initializer(index, len(patterns)),
                None if index == last else parameters[index],
            )
            for index, (pattern, w, b) in enumerate(zip(patterns, values, biases, strict=True))
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of every layer, inputs first."""
        return self.layers[0].n_in, *(layer.n_out for layer in self.layers)

    @property
    def connections(self) -> int:
        """Number of weights that exist; biases are not counted."""
        return sum(layer.nnz for layer in self.layers)

    @property
    def classes(self) -> list[str | int] | None:
        """Names of the classes, carried along with the model; predictions are numbers nevertheless."""
        return self._classes

    @classes.setter
    def classes(self, names: Iterable[str | int] | None) -> None:
        if names is None:
            self._classes = None
            return
        if not self.loss.has_accuracy:
            raise ConfigError(f"a network with loss={self.loss.name!r} has no classes to name; set classes to None")
        plain = [n.item() if isinstance(n, np.generic) else n for n in names]
        wanted = max(2, self.sizes[-1])
        if len(plain) != wanted or not all(isinstance(n, (str, int)) for n in plain):
            raise ConfigError(
                f"classes must be {wanted} names (strings or whole numbers) for this network, got {plain!r}"
            )
        self._classes = plain

    def __repr__(self) -> str:
        return (
            f"SparseMLP({self.sizes}, density={self.density!r}, activation={self.activation!r}, "
            f"dropout={self.dropout!r}, init={self.init!r}, loss={self.loss.name!r}, seed={self.seed})"
        )

    def freeze(self, *, threads: int | None = None) -> FrozenMLP:
        """Return the network as it is now for prediction alone: 8 bytes a connection, fast for single samples.

        Parameters
        ----------
        threads
            For the copying, and default of the frozen network; None: the network's own setting.
        """
        wanted = self.threads if threads is None else check_integer(threads, "threads", low=1)
        some = _kernels.resolve_threads(wanted)
        return FrozenMLP(
            [layer.freeze(some) for layer in self.layers], self.loss, self.scaling, self.classes, threads=wanted
        )

    def compact(self, *, threads: int | None = None) -> Compaction:
        """Take out what cannot change what the finished network says; `sizes` shrink, predictions stay up to rounding.

        Hidden neurons without incoming connections are constants: what they give goes into the biases of the next
        layer. Connections into neurons that lead nowhere are deleted, and then all hidden neurons without any
        connection, but never the last one of a layer. Inputs and outputs stay.

        Parameters
        ----------
        threads
            None: the network's own setting.

        Returns
        -------
        Compaction
            What was removed.
        """
        wanted = self.threads if threads is None else check_integer(threads, "threads", low=1)
        return compact(self, _kernels.resolve_threads(wanted))

    def summary(self) -> Summary:
        """Return shapes, connections, densities and bytes, layer by layer; prints as a table."""
        return summarize(f"SparseMLP {'-'.join(map(str, self.sizes))}, loss {self.loss.name}", self.layers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file that `load` reads; an older file is replaced only when complete.

        Raises
        ------
        CheckpointError
            The file cannot be written.
        """
        from trulysparse.model.serialize import save

        save(self, path)

    def to_config(self) -> dict[str, Any]:
        """Return the arguments that make a network like this one, in plain values; threads are left out."""
        return {
            "sizes": list(self.sizes),
            "density": self.density.to_config(),
            "activation": self.activation.to_config(),
            "dropout": list(self.dropout) if isinstance(self.dropout, tuple) else self.dropout,
            "init": self.init.to_config(),
            "loss": self.loss.name,
            "seed": self.seed,
        }

    @overload
    def to_tensors(self) -> tuple[dict[str, Array], dict[str, Any]]: ...

    @overload
    def to_tensors(self, *, lazy: Literal[True]) -> tuple[dict[str, Array | Converted], dict[str, Any]]: ...

    def to_tensors(self, *, lazy: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return everything that the network is, for a file.

        Parameters
        ----------
        lazy
            True: what has another dtype in a file is not converted now, but block by block as it is written.

        Returns
        -------
        tensors : dict of str to ndarray
            ``layers.{l}.row_ptr`` (int64), ``.col_idx`` (int32), ``.weights``, ``.bias`` and, where an activation is
            trained, ``.activation.{name}`` (float32); ``scaling.shift`` and ``scaling.factor`` if the network has a
            scaling. Not copies, but for ``row_ptr`` where it is int32 and not lazy.
        network : dict
            The configuration and the classes' names, in plain values.
        """
        tensors: dict[str, Any] = {}
        for layer in self.layers:
            row_ptr = layer.pattern.row_ptr
            tensors[f"layers.{layer.index}.row_ptr"] = (
                Converted(row_ptr, np.int64) if lazy else row_ptr.astype(np.int64, copy=False)
            )
            tensors[f"layers.{layer.index}.col_idx"] = layer.pattern.col_idx
            tensors[f"layers.{layer.index}.weights"] = layer.values
            tensors[f"layers.{layer.index}.bias"] = layer.bias
            for name, array in layer.activation_parameters.items():
                tensors[f"layers.{layer.index}.activation.{name}"] = array
        if self.scaling is not None:
            tensors["scaling.shift"] = self.scaling.shift
            tensors["scaling.factor"] = self.scaling.factor
        return tensors, {"config": self.to_config(), "classes": self.classes}

    @classmethod
    def outline(cls, config: Mapping[str, Any]) -> Self:
        """Build the network that `to_config` described, without any connection: what is filled in from elsewhere.

        Parameters
        ----------
        config : mapping
            What `to_config` returned.
        """
        tensors: dict[str, Array] = {}
        for index, (n_in, n_out) in enumerate(pairwise(_check_sizes(config["sizes"]))):
            prefix = f"layers.{index}."
            tensors[prefix + "row_ptr"] = np.zeros(n_in + 1, np.int64)
            tensors[prefix + "col_idx"] = np.zeros(0, np.int32)
            tensors[prefix + "weights"] = np.zeros(0, np.float32)
            tensors[prefix + "bias"] = np.zeros(n_out, np.float32)
            if index < len(config["sizes"]) - 2:
                sizes = get_activation(config["activation"]).parameter_lengths(n_out)
                tensors |= {f"{prefix}activation.{name}": np.zeros(size, np.float32) for name, size in sizes.items()}
        return cls.from_tensors(tensors, {"config": config})

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Array], network: Mapping[str, Any], *, threads: int | None = None
    ) -> Self:
        """Build a network from what `to_tensors` returned. A `Given` density becomes the present patterns.

        Arrays are copied; the tensors of a `TensorFile` are read one by one and not copied.

        Raises
        ------
        CheckpointError
            A tensor is absent, of the wrong type or shape, or a pattern or setting is not valid.
        """
        config = network.get("config")
        if not isinstance(config, Mapping):
            raise CheckpointError("the configuration of the network is absent")
        known = ("sizes", "density", "activation", "dropout", "init", "loss", "seed")
        for key in known:
            if key not in config:
                raise CheckpointError(f"the configuration of the network lacks {key!r}")
        for key in config:
            if key not in known:
                raise CheckpointError(
                    f"the configuration of the network has the unknown entry {key!r}{nearest(key, known)}"
                )
        net = cls.__new__(cls)
        try:
            sizes = _check_sizes(config["sizes"])
            layers = [_read_layer(tensors, index, *shape) for index, shape in enumerate(pairwise(sizes))]
            patterns = [pattern for pattern, _, _ in layers]
            given = isinstance(config["density"], Mapping) and config["density"].get("name") == "given"
            net._settle(
                sizes,
                Given(patterns) if given else get_density(config["density"]),
                config["activation"],
                config["dropout"],
                config["init"],
                config["loss"],
                config["seed"],
                threads,
            )
            parameters = [_read_parameters(tensors, net.activation, *shape) for shape in enumerate(sizes[1:-1])]
            net._fill(patterns, [values for _, values, _ in layers], [bias for _, _, bias in layers], parameters)
            net.classes = network.get("classes")
            if "scaling.shift" in tensors or "scaling.factor" in tensors:
                shift = _tensor(tensors, "scaling.shift", np.float32, sizes[0])
                net.scaling = InputScaling(shift, _tensor(tensors, "scaling.factor", np.float32, sizes[0]))
        except CheckpointError:
            raise
        except (TrulySparseError, TypeError) as error:
            raise CheckpointError(f"the network in the file is damaged: {error}") from error
        return net

    def take_layers(self, other: SparseMLP) -> None:
        """Have the arrays of `other` in place of those that were here.

        Parameters
        ----------
        other : SparseMLP
            With as many layers; their sizes may differ. Its arrays are not copied: use it no more.
        """
        for layer, new in zip(self.layers, other.layers, strict=True):
            layer.replace(new.pattern, new.values, new.bias, new.activation_parameters)

    def drop_connections(self) -> None:
        """Leave the network without any connection, and without the arrays that it had."""
        self.take_layers(self.outline(self.to_config()))

    @property
    def _trained_activations(self) -> bool:
        return any(layer.activation_apart for layer in self.layers)

    def _stages(self, batches: int, threads: int) -> Sequence[Stage]:
        # a copy of the weights in the order in which they are read pays from the third batch on; lean layers were
        # made lean because there is no room for one
        if batches < 3 or any(layer.storage == "lean" for layer in self.layers):
            return self.layers
        return [layer.freeze(threads, lasting=False) for layer in self.layers]


def _check_sizes(sizes: object) -> tuple[int, ...]:
    if isinstance(sizes, (str, bytes)) or not isinstance(sizes, (Sequence, np.ndarray)) or len(sizes) < 2:
        raise ConfigError(
            f"sizes must be at least two numbers of neurons, inputs first, such as (784, 1000, 10), got {sizes!r}"
        )
    return tuple(check_integer(n, f"sizes[{i}]", low=1, high=_INDEX_MAX) for i, n in enumerate(sizes))


def _check_dropout(dropout: Any, n_hidden: int) -> tuple[float | tuple[float, ...], tuple[int, ...]]:
    """Return the rates as given, and for each hidden layer the 16-bit draw below which a unit is dropped."""
    rates: float | tuple[float, ...]
    if isinstance(dropout, Sequence) and not isinstance(dropout, (str, bytes)):
        if len(dropout) != n_hidden:
            raise ConfigError(f"dropout must be one number or {n_hidden}, one for each hidden layer, got {dropout!r}")
        each = rates = tuple(
            check_number(rate, f"dropout[{i}]", low=0, high=1, high_open=True) for i, rate in enumerate(dropout)
        )
    else:
        rates = check_number(dropout, "dropout", low=0, high=1, high_open=True)
        each = (rates,) * n_hidden
    return rates, tuple(min(round(rate * 65536), 65535) for rate in each)


def _tensor(tensors: Mapping[str, Array], name: str, dtype: type[np.generic], length: int | None) -> Array:
    """Return a tensor as an array of the network's own."""
    found = described(tensors, name)
    if found is None:
        raise CheckpointError(f"the tensor {name} is absent")
    got, shape = found
    if got != dtype or len(shape) != 1 or (length is not None and shape[0] != length):
        want = "any length" if length is None else f"length {length}"
        raise CheckpointError(
            f"the tensor {name} has dtype {got} and shape {shape}, expected {np.dtype(dtype)} of {want}"
        )
    return take(tensors, name)


def _read_layer(tensors: Mapping[str, Array], index: int, n_in: int, n_out: int) -> tuple[Pattern, F32, F32]:
    col_idx = _tensor(tensors, f"layers.{index}.col_idx", np.int32, None)
    row_ptr = _tensor(tensors, f"layers.{index}.row_ptr", np.int64, n_in + 1)
    try:
        _kernels.validate_pattern(n_in, n_out, row_ptr, col_idx)
    except (TrulySparseError, ValueError) as error:
        raise CheckpointError(f"the pattern of layer {index} is damaged: {error}") from error
    # only a valid row_ptr may be narrowed: its values are then known to fit
    row_ptr = row_ptr.astype(_kernels.offset_dtype(len(col_idx)), copy=False)
    pattern = Pattern(n_in, n_out, row_ptr, col_idx, validate=False)
    values = _tensor(tensors, f"layers.{index}.weights", np.float32, len(col_idx))
    bias = _tensor(tensors, f"layers.{index}.bias", np.float32, n_out)
    return pattern, values, bias


def _read_parameters(tensors: Mapping[str, Array], activation: Activation, index: int, n_out: int) -> dict[str, F32]:
    return {
        name: _tensor(tensors, f"layers.{index}.activation.{name}", np.float32, length)
        for name, length in activation.parameter_lengths(n_out).items()
    }
