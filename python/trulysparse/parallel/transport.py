# SPDX-License-Identifier: BSD-3-Clause
"""What master and workers say to each other, whichever way it travels."""

from __future__ import annotations

import enum
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from trulysparse.engine import Parameters, TrainState
from trulysparse.model import SparseMLP
from trulysparse.topology import TopologyDelta

_TEXT_BYTES = 480


class Do(enum.IntEnum):
    """What a worker is told to do."""

    OPEN = 1  # take part in opening the model
    COMPUTE = 2  # the gradient of a batch
    REMAP = 3  # the model moves to another window
    LOCAL = 4  # train alone
    GATHER = 5  # give the model to the master
    STOP = 6  # save what is there and end: a signal came
    FINISH = 7
    ABORT = 8


class Said(enum.IntEnum):
    """What a worker says."""

    READY = 1
    GRADIENT = 2
    EPOCH = 3  # a local epoch is done
    DONE = 4  # all of them are
    SIGNAL = 5  # a signal came here
    STOPPED = 6
    FAILED = 7


class _Record:
    """A fixed-size record, so that it can lie in shared memory or travel as bytes; its last field is a text.

    Written and read as packed bytes: field by field, NumPy takes longer for it than the update of a small network.
    """

    dtype: ClassVar[np.dtype[Any]]
    form: ClassVar[struct.Struct]

    def write(self, record: NDArray[Any]) -> None:
        """Fill a 0-dimensional structured array."""
        *numbers, text = vars(self).values()
        raw = text.encode("utf-8")[:_TEXT_BYTES].decode("utf-8", "ignore").encode("utf-8") if text else b""
        self.form.pack_into(record.data, 0, *numbers, raw)

    @classmethod
    def read(cls, record: NDArray[Any]) -> Self:
        """Read a 0-dimensional structured array."""
        *numbers, raw = cls.form.unpack_from(record.data)
        return cls(*numbers, raw.rstrip(b"\0").decode("utf-8", "ignore") if raw[0] else "")  # type: ignore[call-arg]


def _dtype(**kinds: str) -> np.dtype[Any]:
    return np.dtype(list(kinds.items()), align=True)


def _form(dtype: np.dtype[Any]) -> struct.Struct:
    """Return what packs and unpacks the bytes of a record."""
    kinds = {"i8": "q", "f8": "d", f"S{_TEXT_BYTES}": f"{_TEXT_BYTES}s"}
    form = struct.Struct("@" + "".join(kinds[dtype[name].str.lstrip("<>=|")] for name in dtype.names or ()))
    assert form.size == dtype.itemsize
    return form


@dataclass
class Order(_Record):
    """From the master to a worker.

    Attributes
    ----------
    kind : Do
    number, epoch, batch : int
        Of the ticket.
    slot : int
        Which gradient array to write to.
    version : int
        Of the topology that the model has.
    topology : int
        1 if the indices of that version come along.
    argument : int
        What else a kind needs.
    text : str
        Why, for ABORT.
    """

    kind: int
    number: int = 0
    epoch: int = 0
    batch: int = 0
    slot: int = 0
    version: int = 0
    topology: int = 0
    argument: int = 0
    text: str = ""

    dtype = _dtype(
        kind="i8", number="i8", epoch="i8", batch="i8", slot="i8", version="i8", topology="i8", argument="i8",
        text=f"S{_TEXT_BYTES}",
    )  # fmt: skip
    form = _form(dtype)


@dataclass
class Update(_Record):
    """From a worker to the master.

    Attributes
    ----------
    kind : Said
    worker : int
        From 0; the master fills it in.
    number, slot, version : int
        Of the order that this answers.
    loss, correct : float, int
        Sums over the batch, or over the local epoch.
    sent : int
        Gradients sent so far, this one included.
    stop : int
        The signal that the worker got, 0 for none.
    compute_seconds, idle_seconds : float
        Since the last update: spent on the gradient, and waiting for the order.
    epoch, samples, connections : int
        Of a local epoch.
    val_loss, val_accuracy : float
        Of a local epoch, NaN where not measured.
    train_seconds, eval_seconds, evolve_seconds : float
        Of a local epoch.
    private_bytes, shared_bytes : int
        Memory of the process, 0 where it was not measured.
    text : str
        Why, for FAILED.
    """

    kind: int
    worker: int = 0
    private_bytes: int = 0
    shared_bytes: int = 0
    number: int = 0
    slot: int = 0
    version: int = 0
    loss: float = 0.0
    correct: int = 0
    stop: int = 0
    sent: int = 0
    compute_seconds: float = 0.0
    idle_seconds: float = 0.0
    epoch: int = 0
    samples: int = 0
    connections: int = 0
    val_loss: float = float("nan")
    val_accuracy: float = float("nan")
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    evolve_seconds: float = 0.0
    text: str = ""

    dtype = _dtype(
        kind="i8", worker="i8", private_bytes="i8", shared_bytes="i8", number="i8", slot="i8", version="i8",
        loss="f8", correct="i8", stop="i8", sent="i8", compute_seconds="f8", idle_seconds="f8", epoch="i8",
        samples="i8", connections="i8", val_loss="f8", val_accuracy="f8", train_seconds="f8", eval_seconds="f8",
        evolve_seconds="f8", text=f"S{_TEXT_BYTES}",
    )  # fmt: skip
    form = _form(dtype)


class Server(ABC):
    """The master's side.

    Attributes
    ----------
    workers : int
    lost : set of int
        Workers that died; nothing is sent to them any more.
    failed : set of int
        Workers that said that they failed, and end.
    version : int
        Of the topology: goes up with each change.
    """

    shares_memory: ClassVar[bool]
    """Whether the model lies in memory that the workers see."""
    holds: bool
    """Whether no worker may compute while the topology changes."""
    has_model: bool
    """Whether a model is open."""
    name: ClassVar[str]

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.has_model = False
        self.lost: set[int] = set()
        self.failed: set[int] = set()
        self.version = 0

    @property
    def living(self) -> list[int]:
        """The workers that are there."""
        return [k for k in range(self.workers) if k not in self.lost and k not in self.failed]

    @abstractmethod
    def open_model(self, net: SparseMLP, state: TrainState) -> None:
        """Take the network in: workers will compute on it, and its arrays may lie elsewhere until `close_model`."""

    @abstractmethod
    def settle(self, net: SparseMLP, state: TrainState, index: int, delta: TopologyDelta) -> None:
        """Take note of one layer that was rewired, before the whole evolution is over."""

    @abstractmethod
    def publish(self, net: SparseMLP, state: TrainState) -> None:
        """Take in a changed topology; no worker computes now, if `holds`."""

    @abstractmethod
    def own_model(self, net: SparseMLP, state: TrainState) -> None:
        """Give the network back as arrays of this process; no worker computes on it any more."""

    @abstractmethod
    def free_model(self) -> None:
        """Free what the model was shared in; all ranks together."""

    @abstractmethod
    def receive(self, seconds: float) -> Update | None:
        """Return what a worker says, or None when none did for so long; fills `lost`."""

    @abstractmethod
    def gradient(self, slot: int) -> tuple[Parameters, bool]:
        """Return the gradient that lies in a slot, for the network as it is now, and whether it was carried onto it.

        A gradient of an older topology is restricted to the connections that survived ever since; those grown since
        get none (RetainValidUpdates).
        """

    @abstractmethod
    def send(self, worker: int, order: Order) -> None:
        """Tell a worker what to do; COMPUTE and LOCAL take the current model along."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held."""

    @property
    @abstractmethod
    def bytes_of_update(self) -> tuple[int, int]:
        """Bytes that go from a worker to the master with an update, and back in answer."""

    topology_bytes: int = 0
    """Bytes of indices that were sent so far."""


class Client(ABC):
    """A worker's side.

    Attributes
    ----------
    gradient : Parameters
        Where the next gradient goes.
    """

    gradient: Parameters

    @abstractmethod
    def open_model(self) -> None:
        """Make the network the master's; all ranks together."""

    @abstractmethod
    def receive(self) -> Order:
        """Wait for an order; the network is up to date when it is COMPUTE or LOCAL."""

    @abstractmethod
    def poll(self) -> Order | None:
        """Return an order if there is one."""

    @abstractmethod
    def send(self, update: Update) -> None:
        """Tell the master; a GRADIENT goes along with the kind of that name."""

    def layer_done(self, index: int) -> None:  # noqa: B027  # most transports do not care
        """Note that the gradient of a layer's weights is complete."""

    @abstractmethod
    def own_model(self, net: SparseMLP, state: TrainState) -> None:
        """Make the network this process's own, and let `state` have the optimizer's slots, until `free_model`."""

    @abstractmethod
    def free_model(self) -> None:
        """Free what the model was shared in; all ranks together."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held."""
