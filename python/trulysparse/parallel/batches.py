# SPDX-License-Identifier: BSD-3-Clause
"""Which batch a worker takes next: one permutation an epoch, cut into contiguous shards of whole batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ticket:
    """The right to train on one batch.

    Attributes
    ----------
    number : int
        How many were handed out before it in the run: keys the random draws of the step.
    epoch, batch : int
        Which batch of which epoch's permutation.
    """

    number: int
    epoch: int
    batch: int


def shard(batches: int, part: int, parts: int) -> range:
    """Return the batches of shard `part` of `parts`: contiguous, their sizes differ by one at most."""
    return range(part * batches // parts, (part + 1) * batches // parts)


class Batches:
    """Hands out every batch of every epoch exactly once.

    Each worker has a shard of the epoch's batches; one that is done with its own takes from the end of the longest
    remaining shard, so that fast workers wait for nobody and no batch is left out. A batch whose worker was lost is
    handed out again.

    Parameters
    ----------
    batches : int
        Batches in an epoch.
    workers : int
        Shards.
    epoch : int
        The first epoch to hand out.
    end : int
        The epoch before which it ends.
    number : int
        The number of the first ticket.
    left : sequence of (int, int), optional
        Of the first epoch, the ranges of batches that are left, one a shard: what `left` said before a resume.
    """

    def __init__(
        self,
        batches: int,
        workers: int,
        *,
        epoch: int = 0,
        end: int,
        number: int = 0,
        left: list[list[int]] | None = None,
    ) -> None:
        self.batches, self.workers, self.end = batches, workers, end
        self.epoch, self.number = epoch, number
        self._returned: list[Ticket] = []
        self._shards: list[list[int]] = []
        self._open(left)

    def _open(self, left: list[list[int]] | None = None) -> None:
        if self.epoch >= self.end:
            self._shards = []
        elif left is not None:
            self._shards = [list(ends) for ends in left]
        else:
            shards = [shard(self.batches, k, self.workers) for k in range(self.workers)]
            self._shards = [[some.start, some.stop] for some in shards]

    def take(self, worker: int) -> Ticket | None:
        """Return the next ticket for a worker, or None if nothing is left before `end`."""
        if self._returned:
            return self._returned.pop(0)
        if not any(start < stop for start, stop in self._shards):
            if self.epoch >= self.end:
                return None
            if self._shards:
                self.epoch += 1
            self._open()
            if not self._shards:
                return None
        own = self._shards[worker] if worker < len(self._shards) else [0, 0]
        if own[0] < own[1]:
            batch = own[0]
            own[0] += 1
        else:
            longest = max(self._shards, key=lambda ends: ends[1] - ends[0])
            longest[1] -= 1
            batch = longest[1]
        ticket = Ticket(self.number, self.epoch, batch)
        self.number += 1
        return ticket

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to take; a ticket may still come back."""
        if self._returned or any(start < stop for start, stop in self._shards):
            return False
        return self.epoch + bool(self._shards) >= self.end

    def give_back(self, ticket: Ticket) -> None:
        """Take back the ticket of a worker that was lost; the next one to ask gets it."""
        self._returned.append(ticket)

    @property
    def left(self) -> list[list[int]]:
        """The ranges of batches of the epoch under way that nobody has, for a checkpoint."""
        returned = [[t.batch, t.batch + 1] for t in self._returned if t.epoch == self.epoch]
        return [list(ends) for ends in self._shards] + returned

    def to_dict(self) -> dict[str, Any]:
        """Return what `Batches` needs to go on."""
        return {"epoch": self.epoch, "left": self.left}
