# SPDX-License-Identifier: BSD-3-Clause
"""The roofline picture: what the machine can do, and where the kernels and their rivals are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trulysparse._files import replacing
from trulysparse.bench.rivals import OURS, RIVALS
from trulysparse.errors import DataError

__all__ = ["roofline_picture"]

_OURS, _ROOF = "#1f5a99", "#b03030"
_OPERATIONS = {"forward": "forward", "backward": "backward (dX and dW in one)"}
_RIVAL_STYLES = {
    "scipy": ("s", "#7a7a7a"),
    "torch-csr": ("v", "#d1601f"),
    "torch-dense": ("x", "#b8a000"),
    "torch-masked": ("+", "#8c6d31"),
    "sparselab": ("D", "#2e8b57"),
    "sparseprop": ("^", "#8a4fa3"),
    "mkl": ("P", "#c04a7a"),
}
_LEVELS = (("l1_gbs", "L1"), ("l2_gbs", "L2"), ("l3_gbs", "L3"), ("dram_gbs", "memory, in order"))


def roofline_picture(records: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Draw a PNG: a row of panels for each thread count, the rooflines left, forward and backward right.

    Parameters
    ----------
    records : sequence of dict
        Measurements; the largest batch of each shape is drawn.
    path : str or PathLike
        File to write; it appears only when complete.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    DataError
        If there is no measured kernel, or no roofline for its number of threads.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "drawing the roofline needs matplotlib; install it with: pip install 'trulysparse[plot]'"
        ) from error
    roofs = {r["threads"]: r for r in records if r["benchmark"] == "roofline"}
    cases = [r for r in records if r["benchmark"] == "kernels" and r["operation"] in _OPERATIONS]
    largest: dict[str, int] = {}
    for r in cases:
        largest[r["shape"]] = max(largest.get(r["shape"], 0), r["batch"])
    cases = [r for r in cases if r["batch"] == largest[r["shape"]]]
    threads = sorted({r["threads"] for r in cases} & set(roofs))
    if not threads:
        raise DataError("there is no measured forward or backward kernel to draw a roofline for")
    shapes = list(largest)
    height = 1.6 + 0.36 * len(shapes)
    figure = Figure(figsize=(15, max(4.2, height) * len(threads) + 0.7), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(threads), 3, squeeze=False, width_ratios=(1.15, 1, 1))
    for row, count in zip(panels, threads, strict=True):
        some = [r for r in cases if r["threads"] == count]
        _roofline(row[0], roofs[count], some)
        for axis, operation in zip(row[1:], _OPERATIONS, strict=True):
            _comparison(axis, [r for r in some if r["operation"] == operation], shapes, operation, count)
    figure.legend(handles=_legend(cases), loc="outside lower center", ncols=9, frameon=False)
    facts = cases[0]
    batches = "/".join(str(b) for b in sorted(set(largest.values()), reverse=True))
    figure.suptitle(
        f"trulysparse {facts.get('trulysparse', '')}, {facts.get('cpu', '')}, {facts.get('isa', '')}, "
        f"batch {batches}, {str(facts.get('date', ''))[:10]}",
        fontsize=11,
    )
    target = Path(path)
    with replacing(target) as temporary:
        canvas.print_figure(temporary, format="png", dpi=110)
    return target


def _roofline(axis: Any, roof: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """Draw flops a byte against flops a second: bandwidths are slopes, the multiply-adds a lid."""
    peak = roof["fma_gflops"]
    low, high = 0.1, 4.0
    lines = [(roof[key], name, "-") for key, name in _LEVELS]
    rows = roof["random_rows_gbs"]
    lines += [(rows[size], f"memory, random {size} B rows", ":") for size in ("512", "64") if size in rows]
    labelled: list[float] = []
    for gbs, name, style in sorted(lines, reverse=True):
        knee = min(high, peak / gbs)
        axis.plot([low, knee], [low * gbs, knee * gbs], color=_ROOF, linestyle=style, linewidth=1)
        if not labelled or gbs < labelled[-1] * 0.8:  # labels do not overlap
            labelled.append(gbs)
            axis.annotate(
                f"{name}: {gbs:.0f} GB/s", (low, low * gbs), xytext=(4, 1), textcoords="offset points", fontsize=7.5,
                color=_ROOF, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.6}, zorder=1.5,
            )  # fmt: skip
    axis.plot([peak / max(gbs for gbs, _, _ in lines), high], [peak, peak], color=_ROOF, linewidth=1)
    axis.annotate(
        f"multiply-adds: {peak:.0f} GFLOP/s", (high, peak), xytext=(-3, 3), textcoords="offset points",
        fontsize=7.5, color=_ROOF, ha="right",
    )  # fmt: skip
    for r in cases:
        intensity = r["flops"] / r["bytes"]
        filled = r["operation"] == "forward"
        axis.plot(
            intensity,
            r["gflops"],
            "o",
            markersize=6,
            color=_OURS,
            markerfacecolor=_OURS if filled else "white",
            zorder=3,
        )
        best = r["best_rival"]
        if best is not None:
            marker, colour = _style(best)
            axis.plot(intensity, r["timings"][best]["gflops"], marker, markersize=5, color=colour, zorder=2)
    axis.set(xscale="log", yscale="log", xlim=(low, high))
    axis.set_xlabel("flops a byte (filled: forward, open: backward)")
    axis.set_ylabel("GFLOP/s")
    axis.set_title(f"{roof['threads']} thread(s): roofs, trulysparse and its best rival", fontsize=10)
    axis.grid(alpha=0.2, which="both")
    axis.yaxis.set_major_formatter("{x:g}")
    ticks = (0.125, 0.25, 0.5, 1, 2, 4)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)


def _comparison(
    axis: Any, cases: Sequence[Mapping[str, Any]], shapes: Sequence[str], operation: str, threads: int
) -> None:
    """Draw a row for each shape: all contestants on a scale of GFLOP/s, and the roof as a bar's end."""
    for r in cases:
        y = len(shapes) - 1 - shapes.index(r["shape"])
        if r["roof"] is not None:
            axis.barh(y, r["roof"]["gflops"], height=0.62, color=_ROOF, alpha=0.10, zorder=0)
            axis.plot([r["roof"]["gflops"]] * 2, [y - 0.31, y + 0.31], color=_ROOF, linewidth=1.4, zorder=1)
        for name, timing in r["timings"].items():
            if name != OURS:
                marker, colour = _style(name)
                axis.plot(timing["gflops"], y, marker, color=colour, markersize=5.5, zorder=2)
        axis.plot(r["gflops"], y, "o", color=_OURS, markersize=8, zorder=3)
    axis.set_yticks(range(len(shapes)), list(reversed(shapes)), fontsize=8.5)
    axis.set_ylim(-0.6, len(shapes) - 0.4)
    axis.set_xlim(left=0)
    axis.set_xlabel("GFLOP/s of useful work")
    axis.set_title(f"{threads} thread(s): {_OPERATIONS[operation]}", fontsize=10)
    axis.grid(alpha=0.2, axis="x")


def _style(name: str) -> tuple[str, str]:
    return _RIVAL_STYLES.get(name, (".", "#444444"))


def _legend(cases: Sequence[Mapping[str, Any]]) -> list[Any]:
    from matplotlib.lines import Line2D

    present = {name for r in cases for name in r["timings"]}
    handles = [Line2D([], [], marker="o", linestyle="", color=_OURS, markersize=8, label="trulysparse")]
    for name in RIVALS:
        if name in present:
            marker, colour = _style(name)
            handles.append(Line2D([], [], marker=marker, linestyle="", color=colour, label=name))
    handles.append(Line2D([], [], color=_ROOF, label="roof measured in the same run"))
    return handles
