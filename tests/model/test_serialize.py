# SPDX-License-Identifier: BSD-3-Clause
import json
import os
import resource
import stat

import numpy as np
import pytest
import safetensors.numpy

from trulysparse.errors import CheckpointError, DensityWarning
from trulysparse.model import (
    AllReLU,
    ErdosRenyi,
    Given,
    HeUniform,
    InputScaling,
    Normal,
    SparseMLP,
    load,
    read_tensors,
    serialize,
    write_tensors,
)

X = np.random.default_rng(0).normal(3, 2, (40, 12)).astype(np.float32)


def build():
    net = SparseMLP((12, 20, 3), density=0.3, activation=AllReLU(0.4), dropout=0.25, init=HeUniform("sparse"), seed=5)
    for layer in net.layers:
        layer.bias[:] = np.arange(layer.n_out) / 7
    net.scaling = InputScaling.fit(X)
    net.classes = ["a", "b", "c"]
    return net


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_save_and_load_keep_every_bit(path):
    net = build()
    net.layers[0].values[0] = -0.0
    net.layers[0].values[1] = np.float32(1e-42)
    net.save(path)
    again = load(path)
    assert again.to_config() == net.to_config()
    assert again.classes == net.classes
    assert again.scaling == net.scaling
    for a, b in zip(net.layers, again.layers, strict=True):
        assert a.pattern == b.pattern
        assert a.pattern.row_ptr.dtype == b.pattern.row_ptr.dtype
        assert a.values.tobytes() == b.values.tobytes()
        assert a.bias.tobytes() == b.bias.tobytes()
        assert a.activation == b.activation
    assert np.array_equal(net.predict_proba(X), again.predict_proba(X))
    assert again.dropout_thresholds == net.dropout_thresholds
    again.layers[0].values[:] = 0  # what was loaded can be trained
    grown = np.array([0, 5], dtype=np.uint64)
    assert np.array_equal(
        net.layers[0].draw_grown(grown, seed=1, step=2), again.layers[0].draw_grown(grown, seed=1, step=2)
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"sizes": (12, 1), "density": 0.5, "loss": "mse"},
        {
            "sizes": (12, 8, 8, 1),
            "density": ErdosRenyi(1, "replacement"),
            "dropout": [0.1, 0.2],
            "init": Normal(0.3),
        },
        {"sizes": (2, 2), "density": Given([np.eye(2, dtype=bool)]), "activation": "tanh"},
        {"sizes": (2, 3, 2), "density": Given([np.zeros((2, 3), dtype=bool), np.ones((3, 2), dtype=bool)])},
    ],
)
def test_every_kind_of_network(path, arguments):
    net = SparseMLP(**arguments)
    net.save(path)
    again = load(path, threads=2)
    assert again.to_config() == net.to_config()
    assert again.threads == 2
    assert again.scaling is None
    assert again.classes is None
    assert [layer.pattern for layer in again.layers] == [layer.pattern for layer in net.layers]


def test_loading_does_not_warn_about_density_again(path, recwarn):
    with pytest.warns(DensityWarning):
        SparseMLP((12, 3), epsilon=20).save(path)
    recwarn.clear()
    load(path)
    assert not recwarn


def test_the_file_holds_the_documented_tensors(path):
    net = build()
    net.save(path)
    tensors = safetensors.numpy.load_file(path)
    assert {name: (t.dtype.name, t.shape) for name, t in tensors.items()} == {
        "layers.0.row_ptr": ("int64", (13,)),
        "layers.0.col_idx": ("int32", (net.layers[0].nnz,)),
        "layers.0.weights": ("float32", (net.layers[0].nnz,)),
        "layers.0.bias": ("float32", (20,)),
        "layers.1.row_ptr": ("int64", (21,)),
        "layers.1.col_idx": ("int32", (net.layers[1].nnz,)),
        "layers.1.weights": ("float32", (net.layers[1].nnz,)),
        "layers.1.bias": ("float32", (3,)),
        "scaling.shift": ("float32", (12,)),
        "scaling.factor": ("float32", (12,)),
    }
    _, metadata = read_tensors(path)
    assert metadata["kind"] == "model"
    assert metadata["format_version"] == 1
    assert metadata["network"]["config"] == net.to_config()


def test_a_checkpoint_holds_a_network_too(path):
    net = build()
    tensors, network = net.to_tensors()
    tensors["optimizer.layers.0.weights.velocity"] = np.zeros(3, np.float32)
    write_tensors(path, tensors, {"format_version": 9, "kind": "checkpoint", "network": network})
    assert np.array_equal(load(path).predict(X), net.predict(X))


@pytest.mark.parametrize("broken", ["full", "fsync", "interrupt"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, monkeypatch, broken):
    net = build()
    net.save(path)
    before = path.read_bytes()
    net.layers[0].values[:] = 0
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    if broken == "full":  # what a full disk does: a write that fails in the middle of the tensors
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 100, allowed[1]))
    else:
        error = OSError(5, "Input/output error") if broken == "fsync" else KeyboardInterrupt()

        def fail(handle):
            raise error

        monkeypatch.setattr(serialize.os, "fsync", fail)
    try:
        with pytest.raises(KeyboardInterrupt if broken == "interrupt" else CheckpointError):
            net.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    net.save(path)
    assert not load(path).layers[0].values.any()


def test_saved_files_have_ordinary_permissions(path):
    mask = os.umask(0o022)
    try:
        build().save(path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(CheckpointError, match="could not be written"):
        build().save(tmp_path / "file" / "model.safetensors")


def test_missing_file_and_directory(path):
    with pytest.raises(CheckpointError, match=r"there is no file .*model.safetensors"):
        load(path)
    with pytest.raises(CheckpointError, match="is not a file; give the model file in it"):
        load(path.parent)


@pytest.mark.parametrize("length", [0, 3, 8, 100, 1000, -1])
def test_truncated_file(path, length):
    build().save(path)
    content = path.read_bytes()
    path.write_bytes(content[:length])
    with pytest.raises(CheckpointError, match="truncated, damaged or not a safetensors file"):
        load(path)


def test_foreign_files(path):
    path.write_bytes(b"\x80\x04\x95 some pickle that nobody will ever open")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load(path)
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="was not written by trulysparse"):
        load(path)
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path, metadata={"trulysparse": "{"})
    with pytest.raises(CheckpointError, match=r"description in .* is damaged"):
        load(path)
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path, metadata={"trulysparse": "[]"})
    with pytest.raises(CheckpointError, match="lacks its kind or format version"):
        load(path)
    write_tensors(path, {}, {"format_version": 1, "kind": "recipe"})
    with pytest.raises(CheckpointError, match="holds a 'recipe', not a model"):
        load(path)


def test_newer_version(path):
    tensors, network = build().to_tensors()
    write_tensors(path, tensors, {"format_version": 2, "kind": "model", "network": network})
    with pytest.raises(CheckpointError, match=r"newer trulysparse \(model format 2, this one reads up to 1\); upgrade"):
        load(path)


def change(name, **how):
    def damage(tensors, network):
        array = tensors[name].copy()
        if "at" in how:
            array[how["at"]] = how["value"]
        if "dtype" in how:
            array = array.astype(how["dtype"])
        if "cut" in how:
            array = array[: how["cut"]]
        tensors[name] = array

    return damage


def setting(key, value):
    def damage(tensors, network):
        network["config"][key] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t, n: t.pop("layers.1.bias"), "tensor layers.1.bias is absent"),
        (lambda t, n: t.pop("scaling.shift"), "tensor scaling.shift is absent"),
        (lambda t, n: n.pop("config"), "configuration of the network is absent"),
        (lambda t, n: n["config"].pop("init"), "lacks 'init'"),
        (change("layers.0.weights", cut=-1), "layers.0.weights has dtype float32 and shape"),
        (change("layers.0.weights", dtype=np.float64), "layers.0.weights has dtype float64"),
        (change("layers.0.row_ptr", dtype=np.int32), "layers.0.row_ptr has dtype int32"),
        (change("layers.0.row_ptr", at=0, value=1), "pattern of layer 0 is damaged"),
        (change("layers.0.row_ptr", at=5, value=2**40), "pattern of layer 0 is damaged"),
        (change("layers.1.col_idx", at=0, value=3), "pattern of layer 1 is damaged"),
        (change("layers.1.col_idx", at=0, value=-1), "pattern of layer 1 is damaged"),
        (change("scaling.factor", at=2, value=0), "damaged: shift must be finite"),
        (setting("sizes", [12, 21, 3]), "layers.0.bias|layers.1.row_ptr"),
        (setting("sizes", [12]), "damaged: sizes must be"),
        (setting("activation", {"name": "swish"}), "damaged: unknown activation 'swish'"),
        (setting("colour", "red"), "unknown entry 'colour'"),
    ],
)
def test_damaged_networks_are_refused(path, damage, message):
    tensors, network = build().to_tensors()
    network = json.loads(json.dumps(network))
    damage(tensors, network)
    write_tensors(path, tensors, {"format_version": 1, "kind": "model", "network": network})
    with pytest.raises(CheckpointError, match=message):
        load(path)
