# SPDX-License-Identifier: BSD-3-Clause
"""The rivals: what else can train an unstructured sparse layer on a CPU. None of them is needed by trulysparse."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trulysparse.bench.rivals.base import Contestant, NotOffered, Operation
from trulysparse.errors import ConfigError

__all__ = ["OURS", "RIVALS", "Contestant", "Missing", "NotOffered", "Operation", "Rival", "find_rivals"]

OURS = "trulysparse"


@dataclass(frozen=True)
class Rival:
    """A rival by name.

    Attributes
    ----------
    name : str
    module, class_name : str
        Where its `Contestant` is.
    needs : tuple of str
        Modules that must be importable.
    packages : str
        What to install.
    """

    name: str
    module: str
    class_name: str
    needs: tuple[str, ...]
    packages: str

    def contestant(self) -> type[Contestant]:
        """Import everything it needs and return its class."""
        for needed in self.needs:
            if needed == "sparse_dot_mkl":
                from trulysparse.bench.rivals.mkl import import_mkl

                import_mkl()
            else:
                importlib.import_module(needed)
        made: type[Contestant] = getattr(
            importlib.import_module(f"trulysparse.bench.rivals.{self.module}"), self.class_name
        )
        return made


@dataclass(frozen=True)
class Missing:
    """A rival that cannot run here.

    Attributes
    ----------
    name : str
    error : str
        Why: the import error, or what pip said.
    cure : str
        What to type.
    """

    name: str
    error: str
    cure: str

    def __str__(self) -> str:
        return f"{self.name}: {self.error}; {self.cure}"


RIVALS = {
    rival.name: rival
    for rival in (
        Rival("scipy", "scipy_csr", "SciPy", ("scipy.sparse",), "scipy"),
        Rival("torch-csr", "torch_tensors", "TorchCSR", ("torch",), "torch"),
        Rival("torch-dense", "torch_tensors", "TorchDense", ("torch",), "torch"),
        Rival("torch-masked", "torch_tensors", "TorchMasked", ("torch",), "torch"),
        # torch before the others, which load its OpenMP
        Rival("sparselab", "sparselab", "SparseLab", ("torch", "sparselab"), "sparselab"),
        Rival("sparseprop", "sparseprop", "SparseProp", ("torch", "sparseprop", "backend"), "torch sparseprop"),
        Rival("mkl", "mkl", "MKL", ("sparse_dot_mkl",), "mkl sparse_dot_mkl"),
    )
}


def find_rivals(
    names: Sequence[str] | None = None,
    *,
    contestant: Callable[[Rival], type[Contestant]] = Rival.contestant,
) -> tuple[dict[str, Any], list[Missing]]:
    """Import rivals.

    Parameters
    ----------
    names : sequence of str, optional
        Which; default all. ("none",) is no rival at all.
    contestant : callable, optional
        How to import one.

    Returns
    -------
    found : dict of str to type
        The classes of those that can run.
    missing : list of Missing
        The others, each with its error.

    Raises
    ------
    ConfigError
        An unknown name.
    """
    wanted = list(RIVALS) if names is None else [name for name in names if name != "none"]
    for name in wanted:
        if name not in RIVALS:
            raise ConfigError(f"{name!r} is not a rival; known are {', '.join(RIVALS)}, and none")
    found, missing = {}, []
    for name in wanted:
        rival = RIVALS[name]
        try:
            found[name] = contestant(rival)
        except (ImportError, OSError, AttributeError, RuntimeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            missing.append(Missing(name, reason, f"install it with: pip install {rival.packages}"))
    return found, missing
