# SPDX-License-Identifier: BSD-3-Clause
import math

import numpy as np
import pytest

from trulysparse.errors import ConfigError
from trulysparse.optim import SGD, Constant, Cosine, HotStart, MultiStep, Progress, StepDecay, Warmup, get_schedule

STEPS, EPOCHS = 8, 100


def at(schedule, epoch):
    """The learning rate of the step that begins `epoch` (a multiple of 1/8)."""
    return schedule.value(Progress(round(epoch * STEPS), epoch, STEPS, EPOCHS))


def test_constant():
    assert at(Constant(0.3), 0) == at(Constant(0.3), 99.5) == 0.3


def test_step_decay():
    schedule = StepDecay(0.1, every=30, factor=0.5)
    for epoch, rate in ((0, 0.1), (29.875, 0.1), (30, 0.05), (59.875, 0.05), (60, 0.025), (95, 0.0125)):
        assert at(schedule, epoch) == pytest.approx(rate)


def test_multistep():
    schedule = MultiStep(0.1, milestones=[50, 75], factor=0.1)
    for epoch, rate in ((0, 0.1), (49.875, 0.1), (50, 0.01), (74.875, 0.01), (75, 0.001), (99, 0.001)):
        assert at(schedule, epoch) == pytest.approx(rate)


def test_cosine():
    schedule = Cosine(0.1, final=0.02)
    for epoch in (0, 10, 25.5, 50, 99.875, 100):
        assert at(schedule, epoch) == pytest.approx(0.02 + 0.04 * (1 + math.cos(math.pi * epoch / 100)))
    assert at(schedule, 0) == pytest.approx(0.1)
    assert at(schedule, 100) == pytest.approx(0.02)


def test_cosine_of_its_own_length_stays_at_the_end():
    schedule = Cosine(0.1, epochs=10)
    assert at(schedule, 5) == pytest.approx(0.05)
    assert at(schedule, 10) == at(schedule, 70) == pytest.approx(0)


def test_cosine_of_a_run_without_epochs():
    assert Cosine(0.1, final=0.02).value(Progress(0, 0.0, STEPS, 0)) == pytest.approx(0.02)


def test_warmup_rises_in_a_straight_line_step_by_step():
    schedule = Warmup(2, then=0.1)
    assert [at(schedule, step / STEPS) for step in range(20)] == pytest.approx(
        [0.1 * min(1, (s + 1) / 16) for s in range(20)]
    )


def test_warmup_multiplies_what_follows():
    then = Cosine(0.1)
    schedule = Warmup(4, then=then)
    assert at(schedule, 1) == pytest.approx(at(then, 1) * 9 / 32)
    assert at(schedule, 50) == at(then, 50)
    assert at(Warmup(0.25, 0.1), 0) == pytest.approx(0.05)


def test_hot_start_multiplies_the_first_epochs_and_no_step_more():
    schedule = HotStart(2, 3, then=0.1)
    rates = [at(schedule, step / STEPS) for step in range(4 * STEPS)]
    assert rates == pytest.approx([0.3] * 2 * STEPS + [0.1] * 2 * STEPS)
    assert rates[2 * STEPS :] == [0.1] * 2 * STEPS


def test_hot_start_may_end_within_an_epoch():
    rates = [at(HotStart(0.5, 2, then=0.1), step / STEPS) for step in range(STEPS)]
    assert rates == pytest.approx([0.2] * 4 + [0.1] * 4)


def test_hot_start_multiplies_what_follows():
    then = Cosine(0.1)
    schedule = HotStart(4, factor=1.5, then=then)
    assert at(schedule, 3) == pytest.approx(1.5 * at(then, 3))
    assert at(schedule, 50) == at(then, 50)


def test_hot_start_by_name_doubles_five_epochs():
    schedule = get_schedule("hot_start")
    assert schedule == HotStart(epochs=5, factor=2, then=0.01)
    assert (at(schedule, 4.875), at(schedule, 5)) == pytest.approx((0.02, 0.01))
    assert get_schedule({"name": "hot_start", "then": {"name": "step", "lr": 0.1}}) == HotStart(then=StepDecay(0.1))


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(0.2),
        StepDecay(0.1, 10, 0.3),
        MultiStep(0.1, (3, 9), 0.2),
        Cosine(0.1, 0.001),
        Cosine(0.1, epochs=7),
        Warmup(3, 0.05),
        Warmup(0.5, Cosine(0.1)),
        HotStart(3, 1.5, 0.05),
        HotStart(0.5, 4, Warmup(2, Cosine(0.1))),
    ],
)
def test_config_roundtrip(schedule):
    config = schedule.to_config()
    assert get_schedule(config) == schedule
    assert get_schedule(config).to_config() == config
    assert SGD(lr=config).lr == schedule
    assert get_schedule(schedule) is schedule


def test_names_and_numbers():
    assert get_schedule(0.1) == Constant(0.1)
    assert get_schedule("cosine") == Cosine()
    assert get_schedule({"name": "warmup", "epochs": 2, "then": {"name": "step", "lr": 0.1}}) == Warmup(
        2, StepDecay(0.1)
    )
    with pytest.raises(ConfigError, match=r"unknown learning-rate schedule 'cosin'.*did you mean 'cosine'"):
        get_schedule("cosin")


@pytest.mark.parametrize("lr", [0, -0.1, np.nan, np.inf, True, None])
@pytest.mark.parametrize("schedule", [Constant, StepDecay, MultiStep, Cosine, get_schedule])
def test_learning_rates_are_positive(schedule, lr):
    with pytest.raises(ConfigError, match=r"lr.* must be a number in \(0, inf\)"):
        schedule(lr)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepDecay(every=0), "every of StepDecay"),
        (lambda: StepDecay(every=2.5), "every of StepDecay"),
        (lambda: StepDecay(factor=0), "factor of StepDecay"),
        (lambda: MultiStep(milestones=()), "milestones of MultiStep"),
        (lambda: MultiStep(milestones=5), "milestones of MultiStep"),
        (lambda: MultiStep(milestones=(5, 5)), "strictly ascending"),
        (lambda: MultiStep(milestones=(9, 5)), "strictly ascending"),
        (lambda: MultiStep(milestones=(0.5,)), "a milestone of MultiStep"),
        (lambda: Cosine(final=-1), "final of Cosine"),
        (lambda: Cosine(epochs=0), "epochs of Cosine"),
        (lambda: Warmup(epochs=0), "epochs of Warmup"),
        (lambda: Warmup(then="linear"), "unknown learning-rate schedule"),
        (lambda: HotStart(epochs=0), "epochs of HotStart"),
        (lambda: HotStart(factor=0), "factor of HotStart"),
        (lambda: HotStart(factor="2"), "factor of HotStart"),
        (lambda: HotStart(then="linear"), "unknown learning-rate schedule"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_schedules_do_not_change():
    with pytest.raises(AttributeError):
        Constant(0.1).lr = 0.2
    assert repr(Warmup(2, 0.1)) == "Warmup(epochs=2.0, then=Constant(lr=0.1))"
