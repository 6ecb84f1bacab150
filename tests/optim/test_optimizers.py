# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model import SparseMLP
from trulysparse.optim import SGD, Adam, Constant, Cosine, Progress, get_optimizer

N = 1003
LR = 0.03


def start(slots):
    rng = np.random.default_rng(0)
    w = rng.normal(0, 1, N).astype(np.float32)
    return w, {name: np.zeros(N, np.float32) for name in slots}, rng


def sgd_reference(w, v, g, o):
    if o.decay == "l2":
        g = g + o.weight_decay * w
    v = o.momentum * v - LR * g
    step = o.momentum * v - LR * g if o.nesterov else v
    return w + step - (o.weight_decay * w if o.decay == "paper" else 0), v


@pytest.mark.parametrize("decay", ["paper", "l2"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 2e-4, 0.1])
@pytest.mark.parametrize("threads", [1, 7])
def test_sgd_steps(decay, nesterov, weight_decay, threads):
    sgd = SGD(0.5, momentum=0.8, weight_decay=weight_decay, decay=decay, nesterov=nesterov)
    w, slots, rng = start(sgd.slots)
    want_w, want_v = w.astype(float), np.zeros(N)
    for step in (1, 2, 3):
        g = rng.normal(0, 1, N).astype(np.float32)
        sgd.update(w, g, slots, lr=LR, step=step, threads=threads)
        want_w, want_v = sgd_reference(want_w, want_v, g.astype(float), sgd)
    assert w == pytest.approx(want_w, abs=2e-6)
    assert slots["velocity"] == pytest.approx(want_v, abs=2e-6)


def test_the_two_forms_of_decay_differ_by_the_learning_rate():
    zero = np.zeros(N, np.float32)
    paper, l2 = SGD(momentum=0, weight_decay=2e-4), SGD(momentum=0, weight_decay=0.02, decay="l2")
    (a, slots, _), (b, other, _) = start(paper.slots), start(l2.slots)
    before = a.copy()
    paper.update(a, zero, slots, lr=0.01, step=1, threads=1)
    l2.update(b, zero, other, lr=0.01, step=1, threads=1)
    assert a == pytest.approx(before * (1 - 2e-4), rel=1e-6)
    assert b == pytest.approx(a, rel=1e-6)
    c, slots, _ = start(paper.slots)
    paper.update(c, zero, slots, lr=10.0, step=1, threads=1)
    assert np.array_equal(a, c)


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("first_step", [1, 1000])
def test_adam_steps(decoupled, weight_decay, first_step):
    adam = Adam(betas=(0.8, 0.99), eps=1e-6, weight_decay=weight_decay, decoupled=decoupled)
    w, slots, rng = start(adam.slots)
    want, m, v = w.astype(float), np.zeros(N), np.zeros(N)
    for t in range(first_step, first_step + 3):
        g = rng.normal(0, 1, N).astype(np.float32)
        adam.update(w, g, slots, lr=LR, step=t, threads=2)
        grad = g + (0 if decoupled else weight_decay * want)
        m, v = 0.8 * m + 0.2 * grad, 0.99 * v + 0.01 * grad**2
        move = LR * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-6)
        want = want - move - (LR * weight_decay * want if decoupled else 0)
    assert w == pytest.approx(want, abs=5e-6)
    assert slots["m"] == pytest.approx(m, abs=1e-6)
    assert slots["v"] == pytest.approx(v, abs=1e-6)


@pytest.mark.parametrize("sgd", [SGD(weight_decay=2e-4), SGD(weight_decay=0.1, decay="l2"), SGD(nesterov=True)])
def test_the_sink_does_what_update_does(sgd):
    layer, other = (SparseMLP((40, 30), epsilon=5, seed=2).layers[0] for _ in range(2))
    rng = np.random.default_rng(1)
    x, dy = (_kernels.aligned_zeros((n, 32)) for n in (40, 30))
    slots = {"velocity": np.full(layer.nnz, 0.01, np.float32)}
    other_slots = {"velocity": slots["velocity"].copy()}
    gradient = np.empty(layer.nnz, np.float32)
    for step in (1, 2):
        x[:], dy[:] = rng.normal(0, 1, x.shape), rng.normal(0, 1, dy.shape)
        _kernels.backward(layer.view, dy, x, None, sink=sgd.sink(slots, LR, True, True), threads=1)
        _kernels.backward(other.view, dy, x, None, sink=_kernels.sink_store(gradient), threads=1)
        sgd.update(other.values, gradient, other_slots, lr=LR, step=step, threads=1)
    assert np.array_equal(layer.values, other.values)
    assert np.array_equal(slots["velocity"], other_slots["velocity"])


def test_what_can_be_fused():
    assert (SGD().fused, SGD().fused_microbatches) == (True, True)
    assert (SGD(nesterov=True).fused, SGD(nesterov=True).fused_microbatches) == (True, False)
    assert (SGD(clip_norm=1).fused, SGD(clip_norm=1).fused_microbatches) == (False, False)
    assert (Adam().fused, Adam().fused_microbatches) == (False, False)
    slots = {"velocity": np.zeros(3, np.float32), "m": np.zeros(3, np.float32), "v": np.zeros(3, np.float32)}
    for optimizer, last in ((Adam(), True), (SGD(clip_norm=1), True), (SGD(nesterov=True), False)):
        with pytest.raises(ConfigError, match="use update"):
            optimizer.sink(slots, 0.1, True, last)


def test_learning_rate_at():
    progress = Progress(400, 50.0, 8, 100)
    assert SGD(0.2).lr_at(progress) == 0.2
    assert Adam(Cosine(0.2)).lr_at(progress) == pytest.approx(0.1)
    assert SGD("cosine").lr == Cosine()


def test_defaults():
    sgd = SGD()
    assert (sgd.lr, sgd.momentum, sgd.weight_decay, sgd.decay, sgd.nesterov) == (
        0.01,
        0.9,
        0.0,
        "paper",
        False,
    )
    assert sgd.slots == ("velocity",)
    adam = Adam()
    assert (adam.lr, adam.betas, adam.eps, adam.weight_decay, adam.decoupled) == (
        1e-3,
        (0.9, 0.999),
        1e-8,
        0.0,
        True,
    )
    assert adam.slots == ("m", "v")


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(),
        SGD(0.1, 0.5, 1e-4, "l2", True, 2.0),
        SGD(Cosine(0.1, 0.01)),
        SGD(lr_scale="fan_in"),
        Adam(lr_scale="fan_in"),
        Adam(),
        Adam(0.1, [0.5, 0.6], 1e-7, 0.1, False, 1),
        Adam(Constant(0.2)),
    ],
)
def test_config_roundtrip(optimizer):
    config = optimizer.to_config()
    assert get_optimizer(config) == optimizer
    assert get_optimizer(config).to_config() == config
    assert set(config) <= {"name", *type(optimizer).config_keys()}


def test_names():
    assert get_optimizer("sgd") == SGD()
    assert get_optimizer({"name": "adam", "lr": 0.1}) == Adam(0.1)
    assert repr(SGD()) == (
        "SGD(lr=0.01, momentum=0.9, weight_decay=0.0, decay='paper', nesterov=False, clip_norm=None, lr_scale=None)"
    )
    with pytest.raises(ConfigError, match=r"unknown optimizer 'sdg'.*did you mean 'sgd'"):
        get_optimizer("sdg")
    with pytest.raises(ConfigError, match=r"no setting 'momentun'.*did you mean 'momentum'"):
        get_optimizer({"name": "sgd", "momentun": 0.9})


def test_the_first_line_about_sgd_names_both_forms_of_decay():
    first = SGD.__doc__.splitlines()[0]
    assert '"paper"' in first
    assert '"l2"' in first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0), "lr of SGD"),
        (lambda: SGD(-0.1), "lr of SGD"),
        (lambda: SGD(np.nan), "lr of SGD"),
        (lambda: SGD(momentum=1), r"momentum of SGD must be a number in \[0, 1\)"),
        (lambda: SGD(momentum=-0.1), "momentum of SGD"),
        (lambda: SGD(weight_decay=-1e-4), "weight_decay of SGD"),
        (lambda: SGD(weight_decay=1.0), "weight_decay of SGD"),
        (lambda: SGD(decay="L2"), r"decay of SGD must be 'paper' or 'l2', got 'L2'"),
        (lambda: SGD(nesterov="yes"), "nesterov of SGD"),
        (lambda: SGD(nesterov=True, momentum=0), "needs momentum above 0"),
        (lambda: SGD(clip_norm=0), "clip_norm of SGD"),
        (lambda: SGD(lr_scale="fan_out"), "lr_scale of SGD must be 'fan_in' or left out, got 'fan_out'"),
        (lambda: SGD(lr_scale=2), "lr_scale of SGD"),
        (lambda: Adam(lr_scale=["fan_in"]), "lr_scale of Adam"),
        (lambda: Adam(0), "lr of Adam"),
        (lambda: Adam(betas=0.9), "betas of Adam"),
        (lambda: Adam(betas=(0.9, 1.0)), "betas of Adam"),
        (lambda: Adam(betas=(0.9,)), "betas of Adam"),
        (lambda: Adam(eps=0), "eps of Adam"),
        (lambda: Adam(weight_decay=-1), "weight_decay of Adam"),
        (lambda: Adam(decoupled=2), "decoupled of Adam"),
        (lambda: Adam(clip_norm=-1), "clip_norm of Adam"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.1, weight_decay=0.01),
        SGD(0.1, weight_decay=0.01, decay="l2"),
        SGD(0.1, nesterov=True),
        Adam(),
        Adam(decoupled=False),
    ],
    ids=repr,
)
def test_l2_is_the_gradient_of_a_penalty_beside_the_own_decay(optimizer):
    a, slots, rng = start(optimizer.slots)
    b, other = a.copy(), {name: array.copy() for name, array in slots.items()}
    for step in (1, 2):
        g = rng.normal(0, 1, N).astype(np.float32)
        optimizer.update(b, g + np.float32(0.3) * b, other, lr=LR, step=step, threads=1)
        optimizer.update(a, g, slots, lr=LR, step=step, threads=1, l2=0.3)
    assert a == pytest.approx(b, abs=2e-6)
    assert not np.allclose(a, start(())[0], atol=1e-3)


def test_adam_corrects_a_grown_connection_by_its_own_age():
    """Late weights move as they would with an optimizer that began when they were grown."""
    aged = Adam(bias_correction="connection")
    w, slots, rng = start(aged.slots)
    old = N // 2
    gradients = [rng.normal(0, 1, N).astype(np.float32) for _ in range(8)]
    for step, g in enumerate(gradients[:5], start=1):
        aged.update(w[:old], g[:old], {k: s[:old] for k, s in slots.items()}, lr=LR, step=step, threads=1)
    late, fresh = w[old:].copy(), {k: np.zeros(N - old, np.float32) for k in ("m", "v")}
    early, begun = start(())[0][:old].copy(), {k: np.zeros(old, np.float32) for k in ("m", "v")}
    plain = Adam()
    for step, g in enumerate(gradients[:5], start=1):
        plain.update(early, g[:old].copy(), begun, lr=LR, step=step, threads=1)
    for step, g in enumerate(gradients[5:], start=1):
        aged.update(w, g, slots, lr=LR, step=5 + step, threads=2)
        plain.update(late, g[old:].copy(), fresh, lr=LR, step=step, threads=1)
        plain.update(early, g[:old].copy(), begun, lr=LR, step=5 + step, threads=1)
    assert w[old:] == pytest.approx(late, abs=2e-6)
    assert w[:old] == pytest.approx(early, abs=2e-6)
    assert np.array_equal(slots["age"], np.where(np.arange(N) < old, 8, 3))


def test_an_unknown_bias_correction_is_an_error():
    with pytest.raises(ConfigError, match="did you mean 'connection'"):
        Adam(bias_correction="conection")
