# SPDX-License-Identifier: BSD-3-Clause
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.int32] | NDArray[np.int64]
Indices = NDArray[np.int32]
Cells = NDArray[np.uint64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Bits = NDArray[np.uint16]
Activations = NDArray[np.float32] | NDArray[np.uint16]  # uint16 holds bfloat16
Carrier = tuple[Offsets, Indices, list[Floats]]

LANE: int
ALIGNMENT: int
MOST_THREADS: int
BUILD_INFO: dict[str, str]
PURPOSES: dict[str, int]

def available_cores() -> int: ...
def isa() -> str: ...
def available_isas() -> tuple[str, ...]: ...
def set_isa(name: str) -> None: ...
def philox(seed: int, purpose: int, layer: int, step: int, index: int) -> NDArray[np.uint32]: ...
def shuffle(n: int, seed: int, purpose: int, layer: int, step: int) -> NDArray[np.int64]: ...
def artificial_uniform(seed: int, step: int, first: int, n: int, threads: int) -> Floats: ...
def artificial_integers(seed: int, step: int, first: int, n: int, bound: int) -> NDArray[np.uint64]: ...
def artificial_noise(seed: int, step: int, first_row: int, out: Floats, threads: int) -> None: ...
def artificial_cluster(
    seed: int,
    step: int,
    rows: NDArray[np.int64],
    first_row: int,
    mixing: Floats,
    centroid: Floats,
    combining: Floats,
    places: NDArray[np.int64],
    out: Floats,
    threads: int,
) -> None: ...
def augment_images(
    X: NDArray[np.generic],
    rows: NDArray[np.int64],
    out: Floats,
    channels: int,
    height: int,
    width: int,
    channels_last: bool,
    rotation: float,
    shift: float,
    flip: bool,
    nearest: bool,
    seed: int,
    step: int,
    threads: int,
) -> None: ...
def validate_pattern(n_in: int, n_out: int, row_ptr: Offsets, col_idx: Indices) -> None: ...
def transpose(
    n_in: int, n_out: int, row_ptr: Offsets, col_idx: Indices, threads: int
) -> tuple[Offsets, Indices, Offsets]: ...
def in_degree(n_in: int, n_out: int, row_ptr: Offsets, col_idx: Indices) -> NDArray[np.int64]: ...
def transpose_values(
    n_in: int, n_out: int, row_ptr: Offsets, col_idx: Indices, values: Floats, threads: int
) -> tuple[Offsets, Indices, Floats]: ...
def keep(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    mask: Mask,
    arrays: Sequence[Floats],
    threads: int,
) -> Carrier: ...
def rewire(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    mask: Mask | None,
    grown: Cells,
    arrays: Sequence[Floats],
    fills: Sequence[Floats | None],
    threads: int,
) -> Carrier: ...
def unite(
    n_in: int,
    n_out: int,
    patterns: Sequence[tuple[Offsets, Indices]],
    arrays: Sequence[Sequence[Floats]],
    divisor: float,
    threads: int,
) -> Carrier: ...
def carry(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    onto_row_ptr: Offsets,
    onto_col_idx: Indices,
    arrays: Sequence[Floats],
    out: Sequence[Floats] | None,
    threads: int,
) -> list[Floats]: ...
def select(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    rows: Indices | None,
    cols: Indices | None,
    arrays: Sequence[Floats],
    threads: int,
) -> Carrier: ...
def draw_missing(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    mask: Mask | None,
    count: int,
    seed: int,
    purpose: int,
    layer: int,
    step: int,
    threads: int,
) -> Cells: ...
def from_cells(n_in: int, n_out: int, cells: Cells, threads: int) -> tuple[Offsets, Indices]: ...
def sample_bernoulli(
    n_in: int, n_out: int, density: float, seed: int, purpose: int, layer: int, step: int, threads: int
) -> tuple[Offsets, Indices]: ...
def sample_with_replacement(
    n_in: int, n_out: int, draws: int, seed: int, purpose: int, layer: int, step: int, threads: int
) -> tuple[Offsets, Indices]: ...
def sample_exact(
    n_in: int, n_out: int, count: int, seed: int, purpose: int, layer: int, step: int, threads: int
) -> tuple[Offsets, Indices]: ...
def draw_values(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    distribution: str,
    scale: float | Floats,
    seed: int,
    purpose: int,
    layer: int,
    step: int,
    threads: int,
) -> Floats: ...
def draw_values_at(
    cells: Cells,
    n_out: int,
    distribution: str,
    scale: float | Floats,
    seed: int,
    purpose: int,
    layer: int,
    step: int,
    threads: int,
) -> Floats: ...
def count_signs(values: Floats, threads: int) -> tuple[int, int, int]: ...
def drop_by_sign(
    values: Floats, k_positive: int, k_negative: int, drop_zeros: bool, threads: int
) -> tuple[Mask, int]: ...
def drop_smallest(values: Floats, k: int, threads: int) -> Mask: ...
def incoming_strength(col_ptr: Offsets, perm: Offsets, values: Floats, threads: int) -> Floats: ...
def drop_incoming(
    n_in: int, n_out: int, row_ptr: Offsets, col_idx: Indices, targets: Mask, threads: int
) -> tuple[Mask, int]: ...

class NotFiniteError(ValueError): ...

def top_missing_gradients(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    mask: Mask | None,
    x: Floats,
    dy: Floats,
    k: int,
    threads: int,
) -> tuple[Cells, Floats]: ...
def top_missing_values(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    mask: Mask | None,
    dense: Floats,
    k: int,
    threads: int,
) -> tuple[Cells, Floats]: ...
def gradient_at(n_in: int, n_out: int, cells: Cells, x: Floats, dy: Floats, threads: int) -> Floats: ...
def accumulate_gradient(dense: Floats, x: Floats, dy: Floats, decay: float, weight: float, threads: int) -> None: ...

class _LayerView:  # not in the extension: what its two classes have in common
    def __init__(
        self,
        n_in: int,
        n_out: int,
        row_ptr: Offsets,
        col_idx: Indices,
        col_ptr: Offsets | None,
        row_idx: Indices | None,
        perm: Offsets | None,
        weights: Floats,
        bias: Floats,
        trusted: bool = False,
        threads: int = 1,
    ) -> None: ...
    @property
    def n_in(self) -> int: ...
    @property
    def n_out(self) -> int: ...
    @property
    def nnz(self) -> int: ...
    @property
    def weights(self) -> Floats: ...
    @property
    def bias(self) -> Floats: ...

class LayerView32(_LayerView): ...
class LayerView64(_LayerView): ...
class Sink: ...

def sink_none() -> Sink: ...
def sink_store(gradient: Floats) -> Sink: ...
def sink_accumulate(gradient: Floats) -> Sink: ...
def sink_sgd(
    velocity: Floats,
    lr: float,
    momentum: float,
    decay: float,
    form: str,
    nesterov: bool,
    first: bool = True,
    last: bool = True,
    l2: float = 0.0,
) -> Sink: ...
def forward(
    view: LayerView32 | LayerView64,
    x: Activations,
    y: Activations,
    *,
    activation: tuple[str, float],
    dropout_threshold: int = 0,
    negative: Bits | None = None,
    kept: Bits | None = None,
    seed: int = 0,
    layer: int = 0,
    step: int = 0,
    column_offset: int = 0,
    by_target: Floats | None = None,
    threads: int,
) -> None: ...
def weights_by_target(view: LayerView32 | LayerView64, out: Floats, threads: int) -> None: ...

class FrozenLayer: ...

def frozen_layer(
    n_in: int,
    n_out: int,
    col_ptr: Offsets,
    row_idx: Indices,
    weights: Floats,
    bias: Floats,
    activation: tuple[str, float],
    trained: dict[str, Floats] | None,
    threads: int,
) -> FrozenLayer: ...
def forward_frozen(layer: FrozenLayer, x: Activations, y: Activations, threads: int) -> None: ...

class FrozenNetwork:
    def __init__(self, layers: Iterable[FrozenLayer], shift: Floats | None, factor: Floats | None) -> None: ...
    def run(self, samples: Floats, out: Floats, threads: int) -> bool: ...

def backward(
    view: LayerView32 | LayerView64,
    dy: Activations,
    x: Activations,
    dx: Activations | None,
    *,
    row_sum: Floats | None = None,
    below: tuple[str, float] = ("linear", 0.0),
    below_dropout_threshold: int = 0,
    below_negative: Bits | None = None,
    below_kept: Bits | None = None,
    below_slope_gradient: Floats | None = None,
    sink: Sink,
    threads: int,
) -> None: ...
def trained_forward(
    z: Floats,
    y: Activations,
    parameters: dict[str, Floats],
    *,
    dropout_threshold: int = 0,
    kept: Bits | None = None,
    seed: int = 0,
    layer: int = 0,
    step: int = 0,
    column_offset: int = 0,
    threads: int,
) -> None: ...
def trained_backward(
    z: Floats,
    delta: Activations,
    parameters: dict[str, Floats],
    gradients: dict[str, Floats],
    *,
    row_sum: Floats | None = None,
    dropout_threshold: int = 0,
    kept: Bits | None = None,
    threads: int,
) -> None: ...
def row_sums(delta: Floats, out: Floats, threads: int) -> None: ...
def sgd_step(
    w: Floats,
    v: Floats,
    g: Floats,
    *,
    lr: float,
    momentum: float,
    decay: float,
    form: str,
    nesterov: bool,
    l2: float = 0.0,
    first: bool = True,
    last: bool = True,
    threads: int = 1,
) -> None: ...
def adam_step(
    w: Floats,
    m: Floats,
    v: Floats,
    g: Floats,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    decoupled: bool,
    step: int,
    l2: float = 0.0,
    age: Floats | None = None,
    threads: int = 1,
) -> None: ...
def sum_of_squares(g: Floats, threads: int = 1) -> float: ...
def average(arrays: Iterable[Floats], out: Floats, threads: int = 1) -> None: ...
def scale(g: Floats, factor: float, threads: int = 1) -> None: ...
def softmax_cross_entropy(
    z: Floats, labels: NDArray[np.int32], scale: float, delta: Floats | None, threads: int
) -> tuple[float, int]: ...
def binary_cross_entropy(
    z: Floats, targets: Floats, batch: int, scale: float, delta: Floats | None, threads: int
) -> tuple[float, int]: ...
def mean_squared_error(
    z: Floats, targets: Floats, batch: int, scale: float, delta: Floats | None, threads: int
) -> tuple[float, int]: ...
def softmax(z: Floats, batch: int, proba: Floats, threads: int) -> None: ...
def sigmoid(z: Floats, batch: int, proba: Floats, threads: int) -> None: ...
def load_dense(
    X: NDArray[np.generic],
    rows: NDArray[np.int64],
    out: Floats,
    shift: Floats | None,
    factor: Floats | None,
    threads: int,
) -> None: ...
def load_csr(
    data: NDArray[np.generic],
    indices: Offsets,
    indptr: Offsets,
    rows: NDArray[np.int64],
    n_features: int,
    out: Floats,
    factor: Floats | None,
    threads: int,
) -> None: ...
def store_transposed(a: Floats, batch: int, out: Floats, threads: int) -> None: ...
def probe_fma(rounds: int, a: float, b: float, threads: int) -> tuple[int, float]: ...
def probe_read(data: Floats, passes: int, threads: int) -> float: ...
def probe_rows(matrix: Floats, order: Indices, ahead: int, threads: int) -> float: ...
def load_word(words: Indices, index: int) -> int: ...
def store_word(words: Indices, index: int, value: int) -> None: ...
def add_word(words: Indices, index: int, value: int) -> int: ...
def wake_word(words: Indices, index: int) -> int: ...
def wait_word(
    words: Indices, index: int, expected: int, timeout_seconds: float, spin_microseconds: int = 0
) -> bool: ...
