# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations
from typing import Any


class ParallelReport(dict): pass


class Tally:
    def __init__(self, workers: int) -> None:
        self.workers = workers; self.samples = 0; self.updates = 0; self.staleness = {}; self.phases = []; self.idle = 0.0; self.apply = 0.0
        self.compute = [0.0] * workers; self.waited = [0.0] * workers; self.filtered = 0
    def applied(self, worker, *, staleness, samples, compute_seconds, idle_seconds, filtered):
        self.updates += 1; self.samples += samples; self.staleness[staleness] = self.staleness.get(staleness, 0) + 1
        self.compute[worker] += compute_seconds; self.waited[worker] += idle_seconds; self.filtered += filtered
    def phase(self, name, seconds, samples): self.phases.append((name, seconds, samples, samples / seconds))
    def master_idle(self, s): self.idle += s
    def master_applied(self, s): self.apply += s
    def master_evolved(self, s): pass
    def master_evaluated(self, s): pass
    def local(self, worker, s): pass
    def report(self, **more): return ParallelReport(vars(self) | more)
