# SPDX-License-Identifier: BSD-3-Clause
"""The rows of the paper's table 4, one after the other, each in a process of its own.

    python bench/scale/run.py [--rows 1M 50M] [--data X.npy] [--memory 20GiB] [-- OPTIONS OF trulysparse scale]

Every row is `trulysparse scale` with the paper's settings: batches of 128, dropout 0.4, SET, momentum 0.9. Results are
checked there (finite losses, a resumed run whose next step is the same bit for bit) and appended to
bench/results/scale.jsonl. With --data the samples (2.6 GB) are drawn once and mapped by every row.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from trulysparse.bench.scale import PAPER, PaperRow, format_sizes

RESULTS = Path(__file__).parents[1] / "results" / "scale.jsonl"


def name_of(row: PaperRow) -> str:
    return f"{row.neurons // 10**6}M"


def main() -> None:
    names = [name_of(row) for row in PAPER]
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=", ".join(names))
    options.add_argument("--data", type=Path, metavar="FILE.npy")
    options.add_argument("--memory", metavar="SIZE")
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--json", type=Path, default=RESULTS)
    options.add_argument("more", nargs="*", help="options of trulysparse scale, after --")
    chosen = options.parse_args()
    for row in PAPER:
        if name_of(row) not in chosen.rows:
            continue
        command = [sys.executable, "-m", "trulysparse", "scale", format_sizes((65536, *row.hidden, 2))]
        command += ["--epsilon", str(row.epsilon), "--steps", str(chosen.steps), "--json", str(chosen.json)]
        command += ["--data", str(chosen.data)] if chosen.data else []
        command += ["--memory", chosen.memory] if chosen.memory else []
        print(" ".join(command[1:] + chosen.more), flush=True)
        subprocess.run([*command, *chosen.more], check=True)


if __name__ == "__main__":
    main()
