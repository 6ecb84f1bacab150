# SPDX-License-Identifier: BSD-3-Clause
"""Every batch of every epoch is trained on exactly once, whoever asks and in whatever order."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trulysparse.parallel.batches import Batches, Ticket, shard

SIZES = st.tuples(st.integers(1, 23), st.integers(1, 6), st.integers(1, 3))


def every(batches: int, epochs: range) -> Counter[tuple[int, int]]:
    return Counter((epoch, batch) for epoch in epochs for batch in range(batches))


def drain(pool: Batches, workers: int, random: st.DataObject | None = None) -> list[Ticket]:
    """Take until nothing is left, as workers of any speed would."""
    tickets = []
    while (ticket := pool.take(0 if random is None else random.draw(st.integers(0, workers - 1)))) is not None:
        tickets.append(ticket)
    return tickets


@given(st.integers(1, 200), st.integers(1, 17))
def test_shards_are_contiguous_whole_and_as_equal_as_can_be(batches: int, parts: int) -> None:
    shards = [shard(batches, k, parts) for k in range(parts)]
    assert [b for some in shards for b in some] == list(range(batches))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@given(SIZES, st.data())
def test_every_batch_of_every_epoch_is_handed_out_once(sizes: tuple[int, int, int], data: st.DataObject) -> None:
    batches, workers, epochs = sizes
    pool = Batches(batches, workers, end=epochs)
    tickets = drain(pool, workers, data)
    assert Counter((t.epoch, t.batch) for t in tickets) == every(batches, range(epochs))
    assert [t.number for t in tickets] == list(range(batches * epochs))
    assert [t.epoch for t in tickets] == sorted(t.epoch for t in tickets)
    assert all(pool.take(worker) is None for worker in range(workers))


@given(SIZES, st.data())
def test_batches_of_lost_workers_are_handed_out_again(sizes: tuple[int, int, int], data: st.DataObject) -> None:
    batches, workers, epochs = sizes
    pool, done, lost = Batches(batches, workers, end=epochs), list[Ticket](), 0
    while (ticket := pool.take(data.draw(st.integers(0, workers - 1)))) is not None:
        if lost < 10 and data.draw(st.booleans()):
            lost += 1
            pool.give_back(ticket)
        else:
            done.append(ticket)
    assert Counter((t.epoch, t.batch) for t in done) == every(batches, range(epochs))
    assert len({t.number for t in done}) == len(done)


def test_one_worker_trains_in_the_order_of_the_permutation() -> None:
    assert drain(Batches(4, 1, epoch=2, end=4, number=8), 1) == [
        Ticket(8 + i, 2 + i // 4, i % 4) for i in range(8)
    ]  # fmt: skip


def test_who_is_done_takes_from_the_end_of_the_longest_shard() -> None:
    pool = Batches(7, 2, end=1)
    assert [pool.take(0).batch for _ in range(3)] == [0, 1, 2]  # type: ignore[union-attr]
    assert pool.take(0) == Ticket(3, 0, 6)
    assert pool.take(1) == Ticket(4, 0, 3)
    assert pool.take(0) == Ticket(5, 0, 5)
    assert pool.take(1) == Ticket(6, 0, 4)
    assert pool.take(1) is None


@given(SIZES, st.integers(1, 6), st.data())
def test_a_resumed_epoch_is_finished_by_any_number_of_workers(
    sizes: tuple[int, int, int], others: int, data: st.DataObject
) -> None:
    batches, workers, epochs = sizes
    pool, done = Batches(batches, workers, end=epochs), list[Ticket]()
    for _ in range(data.draw(st.integers(0, batches * epochs))):
        ticket = pool.take(data.draw(st.integers(0, workers - 1)))
        assert ticket is not None
        if data.draw(st.integers(0, 4)) == 0:
            pool.give_back(ticket)
        else:
            done.append(ticket)
    kept = json.loads(json.dumps({"epoch": pool.epoch, "left": pool.left}))
    again = Batches(batches, others, epoch=kept["epoch"], end=epochs, number=len(done), left=kept["left"])
    done += drain(again, others, data)
    assert Counter((t.epoch, t.batch) for t in done) == every(batches, range(epochs))
    assert [t.number for t in done][-1] == batches * epochs - 1


def test_nothing_is_handed_out_from_the_end_on() -> None:
    assert Batches(3, 2, epoch=2, end=2).take(0) is None
    assert Batches(3, 2, epoch=0, end=1, left=[[3, 3], [3, 3]]).take(1) is None
    first = Batches(3, 2, epoch=0, end=2, left=[[3, 3], [3, 3]], number=3).take(0)
    assert first == Ticket(3, 1, 0)
