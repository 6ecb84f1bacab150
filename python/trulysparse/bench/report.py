# SPDX-License-Identifier: BSD-3-Clause
"""Results for the terminal: a header, then one line a measurement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trulysparse.bench.rivals import OURS, Missing

__all__ = ["duration", "kernel_header", "line", "missing_lines"]


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1 or unit == "us":
            return f"{seconds * scale:.3g} {unit}"
    raise AssertionError


def missing_lines(missing: Iterable[Missing]) -> list[str]:
    """Return one line for each rival that cannot run here."""
    return [f"not measured: {rival}" for rival in missing]


def kernel_header() -> str:
    """Return the heads of the columns of `line` for kernels."""
    return (
        f"{'shape':<20} {'batch':>5} {'thr':>3}  {'operation':<9} {'time':>9} {'spread':>7} {'GFLOP/s':>8} {'MB':>8} "
        f"{'GB/s':>6} {'of roof':>8} {'rival':>9}  best rival"
    )


def line(record: Mapping[str, Any]) -> str:
    """Return a record as one line (break-even: several)."""
    return _LINES[record["benchmark"]](record)


def _roofline(r: Mapping[str, Any]) -> str:
    rows = ", ".join(f"{gbs:.0f} ({size} B)" for size, gbs in r["random_rows_gbs"].items())
    return (
        f"{r['threads']} thread(s): multiply-adds {r['fma_gflops']:.0f} GFLOP/s; reading L1 {r['l1_gbs']:.0f}, "
        f"L2 {r['l2_gbs']:.0f}, L3 {r['l3_gbs']:.0f}, memory {r['dram_gbs']:.0f} GB/s; its rows at random {rows} GB/s"
    )


def _kernels(r: Mapping[str, Any]) -> str:
    ours = r["timings"][OURS]
    low, high = ours["quartiles"]
    spread = f"{100 * (high - low) / ours['seconds']:.0f}%"
    gflops = f"{r['gflops']:.1f}" if r["flops"] else "-"
    roof = "-" if r["roof"] is None else f"{100 * r['roof']['fraction']:.0f}%"
    rival = "-" if r["best_rival"] is None else duration(r["timings"][r["best_rival"]]["seconds"])
    best = "-" if r["best_rival"] is None else f"{r['ratio']:.1f}x {r['best_rival']}"
    batch = r["batch"] or "-"
    return (
        f"{r['shape']:<20} {batch:>5} {r['threads']:>3}  {r['operation']:<9} {duration(ours['seconds']):>9} "
        f"{spread:>7} {gflops:>8} {r['bytes'] / 1e6:>8.1f} {r['gbs']:>6.0f} {roof:>8} {rival:>9}  {best}"
    )


def _epoch(r: Mapping[str, Any]) -> str:
    times = ", ".join(f"{name} {duration(timing['seconds'])}" for name, timing in r["timings"].items())
    ratios = []
    if r["ratio"] is not None:
        ratios.append(f"{r['ratio']:.1f}x {r['best_rival']}")
    if r["ratio_dense"] is not None:
        ratios.append(f"{r['ratio_dense']:.1f}x dense")
    return (
        f"epoch of {r['network']} ({'-'.join(map(str, r['sizes']))}, {r['samples']:,} samples, batch {r['batch']}; "
        f"extrapolated: {r['extrapolated']}), {r['threads']} thread(s): {times}; {', '.join(ratios) or 'no rivals'}; "
        f"an evolution takes {r['evolution_steps']:.1f} steps"
    )


def _busy(r: Mapping[str, Any]) -> str:
    quiet, busy = (duration(r["timings"][mode]["seconds"]) for mode in ("quiet", "busy"))
    return (
        f"epoch of {r['network']} on {r['threads']} threads: {quiet} quiet, {busy} with another process busy on one "
        f"core, {r['ratio']:.2f} times"
    )


def _break_even(r: Mapping[str, Any]) -> str:
    ratios = ", ".join(f"{100 * d['density']:g}%: {d['ratio']:.2f}x" for d in r["densities"])
    last = "at no density measured" if r["break_even"] is None else f"up to {100 * r['break_even']:g}%"
    return (
        f"training step of {r['shape']}, batch {r['batch']}, {r['threads']} thread(s), against dense PyTorch: "
        f"{ratios}; faster {last}"
    )


def _inference(r: Mapping[str, Any]) -> str:
    ours, scipy = (duration(r["timings"][name]["seconds"]) for name in (OURS, "scipy"))
    return f"one sample through {r['network']} on one thread: {ours}, SciPy CSR {scipy}, {r['ratio']:.1f}x"


_LINES = {
    "roofline": _roofline,
    "kernels": _kernels,
    "epoch": _epoch,
    "busy_core": _busy,
    "break_even": _break_even,
    "inference": _inference,
}


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return all records as a text, kernels under a header."""
    lines = []
    header = False
    for record in records:
        if record["benchmark"] == "kernels" and not header:
            lines.append(kernel_header())
        header = record["benchmark"] == "kernels"
        lines.append(line(record))
    return "\n".join(lines)


__all__ += ["table"]
