# SPDX-License-Identifier: BSD-3-Clause
"""The only place that imports matplotlib."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trulysparse._files import replacing

__all__ = ["figure", "line_look", "write_png"]

# The palette of Okabe and Ito, which the colour-blind can tell apart; yellow is too pale for a line.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_STYLES = ("-", "--", "-.", ":")


def line_look(number: int) -> dict[str, Any]:
    """Return colour and dashes: both change, so that no two of the first 28 lines look alike."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _STYLES[(number // len(_COLOURS)) % len(_STYLES)],
    }


def figure(what: str, size: tuple[float, float]) -> Any:
    """Return an empty matplotlib figure of `size` inches.

    Raises
    ------
    ImportError
        If matplotlib is missing; `what` says what it was for.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"drawing {what} needs matplotlib; install it with: pip install 'trulysparse[plot]'"
        ) from error
    # The object interface leaves pyplot's figures and the user's backend alone.
    made = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(made)
    return made


def write_png(drawn: Any, path: str | os.PathLike[str]) -> Path:
    """Write a figure as a PNG file, whole or not at all; return its path."""
    target = Path(path)
    with replacing(target) as temporary:
        drawn.canvas.print_figure(temporary, format="png", dpi=120)
    return target
