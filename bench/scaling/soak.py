# SPDX-License-Identifier: BSD-3-Clause
"""Many short parallel runs of random shape with random delays, and runs of which a worker is killed.

    python bench/scaling/soak.py --runs 200 --json soak.jsonl
    python bench/scaling/soak.py --kills 20 --json soak.jsonl
    python bench/scaling/soak.py --kills 20 --ulfm --json soak.jsonl     # with Open MPI

Each run must end in time with every update that was sent applied, and leave nothing in /dev/shm. After a kill the job
must end at once, and a resumed one must finish; with fault tolerance (ULFM) the run itself must finish.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUN_SECONDS = 40
KILL_SECONDS = 30
RUNS_A_LAUNCH = 10
OPEN_MPI = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]


# On the ranks


def plan(draw: random.Random) -> dict[str, Any]:
    """Draw a run; all ranks draw the same."""
    return {
        "strategy": draw.choice(["wasap", "wassp"]),
        "transport": draw.choice(["shared", "messages"]),
        "phase_two": draw.choice([0.0, 0.0, 0.3, 0.5, 1.0]),
        "topology": draw.choice(["set", "rigl", "static"]),
        "every": draw.randint(2, 6),
        "pruning": draw.random() < 0.3,
        "activation": draw.choice(["all_relu", "prelu"]),
        "optimizer": draw.choice(["sgd", "adam"]),
        "broadcast": draw.random() < 0.5,
        "hidden": [draw.randint(20, 60), draw.choice([30, 3000])],
        "epochs": draw.randint(1, 4),
        "batch_size": draw.choice([16, 32, 50]),
        "delay": draw.choice([0.0, 0.0, 0.001, 0.004]),
        "seed": draw.randrange(2**32),
    }


def make_trainer(spec: dict[str, Any], **more: Any) -> Any:
    import trulysparse as ts
    from trulysparse.parallel import WASAP, WASSP

    kinds = {"wasap": WASAP, "wassp": WASSP}
    rules = {
        "set": lambda: ts.SET(0.3, update_every=spec["every"], unit="steps"),
        "rigl": lambda: ts.RigL(0.3, update_every=spec["every"]),
        "static": ts.Static,
    }
    activation = ts.PReLU() if spec["activation"] == "prelu" else ts.AllReLU(0.6)
    net = ts.SparseMLP((12, *spec["hidden"], 2), density=0.3, dropout=0.1, activation=activation, seed=spec["seed"])
    return ts.Trainer(
        net,
        topology=rules[spec["topology"]](),
        optimizer=ts.SGD(lr=0.001, momentum=0.9) if spec["optimizer"] == "sgd" else ts.Adam(lr=0.001),
        pruning=ts.ImportancePruning(start=0, period=1, regrow_into_pruned=False) if spec["pruning"] else None,
        parallel=kinds[spec["strategy"]](
            phase_two=spec["phase_two"], transport=spec["transport"], broadcast=spec["broadcast"]
        ),
        batch_size=spec["batch_size"],
        threads=1,
        progress=False,
        seed=spec["seed"],
        **more,
    )


def data() -> tuple[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    X = rng.normal(size=(480, 12)).astype(np.float32)
    return X, (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(np.int64)


def mapped(pid: int | str = "self") -> list[str]:
    """Return what a process maps of /dev/shm."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []  # it ended by itself
    return sorted({line.split()[5] for line in lines if "/dev/shm/" in line})


class Delays:
    """Sleeps of random length before gradients and between the steps of local training."""

    def __init__(self) -> None:
        from trulysparse.engine import Engine
        from trulysparse.parallel.worker import Worker

        self.longest = 0.0
        self.draw = random.Random(os.getpid())
        self.seen: set[str] = set()
        for owner, name in ((Worker, "_compute"), (Engine, "train_batch"), (Engine, "apply")):
            setattr(owner, name, self._wrap(getattr(owner, name)))

    def _wrap(self, function: Any) -> Any:
        def delayed(*arguments: Any) -> Any:
            if len(self.seen) < 64 and self.draw.random() < 0.05:
                self.seen.update(mapped())
            if self.longest and self.draw.random() < 0.3:
                time.sleep(self.draw.random() * self.longest)
            return function(*arguments)

        return delayed


def runs_on_ranks(folder: Path, seed: int, count: int) -> None:
    """Carry out `count` runs, and write JSON lines about each."""
    import warnings

    from trulysparse.errors import ParallelWarning, ScheduleWarning
    from trulysparse.parallel.world import import_mpi

    warnings.simplefilter("ignore", ParallelWarning)
    warnings.simplefilter("ignore", ScheduleWarning)
    rank = import_mpi().COMM_WORLD.Get_rank()
    delays, (X, y), draw = Delays(), data(), random.Random(seed)

    def tell(line: dict[str, Any]) -> None:
        with (folder / f"rank{rank}").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    for _ in range(count):
        spec = plan(draw)
        if rank == 0:
            tell({"begins": spec})
        faulthandler.dump_traceback_later(RUN_SECONDS, exit=True)
        delays.longest = spec["delay"]
        trainer = make_trainer(spec)
        started = time.perf_counter()
        trainer.fit(X, y, epochs=spec["epochs"], validation=0.1)
        faulthandler.cancel_dump_traceback_later()
        if rank == 0:
            report = trainer.parallel_report
            told = {
                "ends": {
                    "seconds": round(time.perf_counter() - started, 3),
                    "sent": report.updates_sent,
                    "applied": report.updates_applied,
                    "carried": report.filtered,
                    "staleness": max(report.staleness, default=0),
                    "rows": len(trainer.history.rows),
                    "evolutions": trainer.state.evolutions,
                }
            }
            tell(told)
        tell({"maps": sorted(delays.seen | set(mapped()))})


def victim_on_ranks(folder: Path, seed: int) -> None:
    """Begin a run that is slow enough to be struck, or resume it; rank 0 says when it is over."""
    import trulysparse as ts
    from trulysparse.parallel.world import import_mpi

    rank = import_mpi().COMM_WORLD.Get_rank()
    (folder / f"pid{rank}").write_text(str(os.getpid()))
    delays, (X, y) = Delays(), data()
    draw = random.Random(seed)
    spec = plan(draw) | {"epochs": 8, "batch_size": 16, "delay": 0.01, "phase_two": draw.choice([0.0, 0.4])}
    file = folder / "checkpoint.safetensors"
    if file.exists():
        trainer = ts.Trainer.resume(file, checkpoint=file, checkpoint_every=1, threads=1, progress=False)
    else:
        trainer = make_trainer(spec, checkpoint=file, checkpoint_every=1)
    delays.longest = spec["delay"]
    faulthandler.dump_traceback_later(KILL_SECONDS - 4, exit=True)
    trainer.fit(X, y, epochs=spec["epochs"])
    faulthandler.cancel_dump_traceback_later()
    if rank == 0:
        report = trainer.parallel_report
        updates = report.updates if report else 0
        facts = {"rows": len(trainer.history.rows), "updates": updates, "step": trainer.state.step}
        (folder / "done.json").write_text(json.dumps(facts))


# The one that starts them


def start(ranks: int, arguments: list[str], ulfm: bool = False) -> subprocess.Popen[str]:
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec") or "mpiexec"
    more = [*OPEN_MPI, "--with-ft", "ulfm"] if ulfm else []
    # an exception on one rank is to end the others; with fault tolerance a death is not
    runner = [sys.executable, *([] if ulfm else ["-m", "mpi4py"]), str(Path(__file__).resolve())]
    return subprocess.Popen(
        [mpiexec, *more, "-n", str(ranks), *runner, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], seconds: float, pids: list[int]) -> tuple[bool, str, str]:
    """Return whether a job ended in time, and what it wrote; one that did not is killed with all its ranks."""
    try:
        return True, *process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        for pid in pids:
            _kill(pid)
        os.killpg(process.pid, signal.SIGKILL)
        return False, *process.communicate()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it ended by itself


def soak(runs: int, seed: int) -> dict[str, Any]:
    """Start jobs of several runs each, and count what went wrong."""
    draw = random.Random(seed)
    counts: dict[str, Any] = {"runs": 0, "updates": 0, "carried": 0, "most_stale": 0, "failed": 0, "lost_updates": 0}
    left: set[str] = set()
    while counts["runs"] + counts["failed"] < runs:
        count = min(RUNS_A_LAUNCH, runs - counts["runs"] - counts["failed"])
        workers, launch_seed = draw.randint(1, 4), draw.randrange(2**32)
        with tempfile.TemporaryDirectory() as folder:
            process = start(workers + 1, ["--on-ranks", folder, str(launch_seed), str(count)])
            in_time, _, err = finish(process, RUN_SECONDS * count + 20, [])
            lines = [line for file in sorted(Path(folder).iterdir()) for line in file.read_text().splitlines()]
        spec = None
        maps: set[str] = set()
        for line in map(json.loads, lines):
            if "begins" in line:
                spec = line["begins"]
            elif "maps" in line:
                maps |= set(line["maps"])
            else:
                run, spec = line["ends"], None
                counts["runs"] += 1
                counts["updates"] += sum(run["applied"])
                counts["carried"] += run["carried"]
                counts["most_stale"] = max(counts["most_stale"], run["staleness"])
                counts["lost_updates"] += sum(run["sent"]) - sum(run["applied"])
        if process.returncode != 0 or not in_time or spec is not None:
            counts["failed"] += 1
            print(f"FAILED with {workers} workers, seed {launch_seed}: {spec}\n{err[-6000:]}", flush=True)
        left |= {path for path in maps if Path(path).exists()}
        print(f"{counts} {sorted(left)}", flush=True)
    return counts | {"left_in_shm": sorted(left)}


def kill(times: int, seed: int, ulfm: bool) -> dict[str, Any]:
    """Kill a worker of each of so many runs, at any moment after the first epoch, and see how it goes on."""
    draw = random.Random(seed)
    counts: dict[str, Any] = {"kills": 0, "too_late": 0, "failed": 0, "finished": 0, "longest_seconds": 0.0}
    left: set[str] = set()
    while counts["kills"] < times:
        workers, run_seed = draw.randint(2, 3), draw.randrange(2**32)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            process = start(workers + 1, ["--victim", name, str(run_seed)], ulfm)
            until = time.monotonic() + RUN_SECONDS
            while not (folder / "checkpoint.safetensors").exists() and process.poll() is None:
                if time.monotonic() > until:
                    break
                time.sleep(0.01)
            time.sleep(draw.random() * 1.0)
            pids = [int(file.read_text()) for file in sorted(folder.glob("pid*"))]
            if (folder / "done.json").exists() or process.poll() is not None:
                counts["too_late"] += 1
                finish(process, KILL_SECONDS, pids)
                continue
            counts["kills"] += 1
            maps = {path for pid in pids for path in mapped(pid)}
            _kill(pids[draw.randint(1, workers)])
            struck = time.monotonic()
            in_time, out, err = finish(process, KILL_SECONDS, pids)
            exits = counts.setdefault("exit_codes", {})
            exits[str(process.returncode)] = exits.get(str(process.returncode), 0) + 1
            counts["longest_seconds"] = max(counts["longest_seconds"], round(time.monotonic() - struck, 2))
            left |= {path for path in maps if Path(path).exists()}
            bad = not in_time or (not ulfm and process.returncode == 0)
            if not ulfm:
                process = start(workers + 1, ["--victim", name, str(run_seed)])
                in_time, out, err = finish(process, RUN_SECONDS, [])
                bad = bad or not in_time or process.returncode != 0
            done = folder / "done.json"
            if done.exists() and json.loads(done.read_text())["rows"] == 8 and not bad:
                counts["finished"] += 1
            else:
                counts["failed"] += 1
                spec = plan(random.Random(run_seed))
                print(
                    f"FAILED: {workers} workers, seed {run_seed}, exit {process.returncode}, in time {in_time}\n{spec}"
                )
                print(out[-2000:], err[-8000:], flush=True)
            print(f"{counts} {sorted(left)}", flush=True)
    return counts | {"left_in_shm": sorted(left)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--ulfm", action="store_true", help="Open MPI with fault tolerance: the run goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="append a line with the counts")
    parser.add_argument("--on-ranks", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--victim", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.on_ranks:
        folder, seed, count = arguments.on_ranks
        runs_on_ranks(Path(folder), int(seed), int(count))
        return 0
    if arguments.victim:
        victim_on_ranks(Path(arguments.victim[0]), int(arguments.victim[1]))
        return 0
    found: dict[str, Any] = {"seed": arguments.seed, "date": time.strftime("%Y-%m-%d")}
    started = time.monotonic()
    if arguments.runs:
        found["soak"] = soak(arguments.runs, arguments.seed)
    if arguments.kills:
        found["kills_ulfm" if arguments.ulfm else "kills"] = kill(arguments.kills, arguments.seed, arguments.ulfm)
    found["seconds"] = round(time.monotonic() - started, 1)
    if arguments.json:
        with arguments.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    print(json.dumps(found))
    parts = [part for part in found.values() if isinstance(part, dict)]
    return int(any(part["failed"] or part.get("lost_updates") or part["left_in_shm"] for part in parts))


if __name__ == "__main__":
    sys.exit(main())
