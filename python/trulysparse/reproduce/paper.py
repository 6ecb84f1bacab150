# SPDX-License-Identifier: BSD-3-Clause
"""What the paper reports: "Truly Sparse Neural Networks at Scale" (arXiv:2102.01732), tables 2, 3, 5 and 6."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MACHINE", "NO_FIGURE", "TABLE2", "TABLE2_DENSE", "TABLE3", "TABLE5", "TABLE6", "Figure"]

MACHINE = "i7-9750H, 6 cores; sparse rows of tables 2 and 5 on one core, table 3 on 5 workers and a master"


@dataclass(frozen=True)
class Figure:
    """One row of the paper; None where it gives nothing.

    Attributes
    ----------
    accuracy : float or None
        In percent: mean over five runs of the best test accuracy.
    start, end : int or None
        Connections; of dense networks, weights and biases.
    minutes : float or None
    """

    accuracy: float | None = None
    start: int | None = None
    end: int | None = None
    minutes: float | None = None


NO_FIGURE = Figure()

# by data set, activation ("relu" or "all_relu"), importance pruning
TABLE2: dict[tuple[str, str, bool], Figure] = {
    ("leukemia", "relu", False): Figure(85.98, 1_684_944, 1_684_944, 375),
    ("leukemia", "relu", True): Figure(85.40, 1_582_214, 312_900, 266.5),
    ("leukemia", "all_relu", False): Figure(86.42, 1_582_518, 1_582_518, 375),
    ("leukemia", "all_relu", True): Figure(85.69, 1_582_581, 313_047, 266.5),
    ("higgs", "relu", False): Figure(73.59, 50_224, 50_244, 216.67),
    ("higgs", "relu", True): Figure(73.50, 50_246, 10_065, 182.3),
    ("higgs", "all_relu", False): Figure(73.67, 50_165, 50_165, 216.67),
    ("higgs", "all_relu", True): Figure(73.76, 50_165, 9_992, 140.3),
    ("madelon", "relu", False): Figure(68.50, 19_000, 19_000, 3.6),
    ("madelon", "relu", True): Figure(75.00, 19_000, 2_739, 3.2),
    ("madelon", "all_relu", False): Figure(71.33, 19_011, 19_011, 3.6),
    ("madelon", "all_relu", True): Figure(77.00, 19_000, 2_737, 3.2),
    ("fashion_mnist", "relu", False): Figure(90.48, 126_302, 126_302, 137.5),
    ("fashion_mnist", "relu", True): Figure(89.43, 126_302, 26_111, 96.25),
    ("fashion_mnist", "all_relu", False): Figure(91.38, 126_302, 126_302, 137.5),
    ("fashion_mnist", "all_relu", True): Figure(90.12, 126_302, 25_759, 96.25),
    ("cifar10", "relu", False): Figure(67.05, 381_758, 381_758, 590),
    ("cifar10", "relu", True): Figure(65.21, 381_758, 238_114, 530),
    ("cifar10", "all_relu", False): Figure(69.83, 381_425, 381_425, 590),
    ("cifar10", "all_relu", True): Figure(68.55, 380_318, 221_323, 530),
}

TABLE2_DENSE: dict[tuple[str, str], Figure] = {
    ("leukemia", "relu"): Figure(None, 2_260_362_518),
    ("leukemia", "all_relu"): Figure(None, 2_260_362_518),
    ("higgs", "relu"): Figure(70.59, 2_033_002, None, 182.3),
    ("higgs", "all_relu"): Figure(70.10, 2_033_002, None, 140.13),
    ("madelon", "relu"): Figure(59.66, 281_702, None, 3.62),
    ("madelon", "all_relu"): Figure(62.00, 281_702, None, 3.62),
    ("fashion_mnist", "relu"): Figure(90.85, 2_797_010, None, 95.05),
    ("fashion_mnist", "all_relu"): Figure(90.73, 2_797_010, None, 95.05),
    ("cifar10", "relu"): Figure(64.94, 20_337_010, None, 530.7),
    ("cifar10", "all_relu"): Figure(67.96, 20_337_010, None, 530.7),
}

# by data set, strategy, importance pruning; All-ReLU
TABLE3: dict[tuple[str, str, bool], Figure] = {
    ("higgs", "wassp", False): Figure(74.26, minutes=142.52),
    ("higgs", "wassp", True): Figure(74.16, minutes=113.33),
    ("higgs", "wasap", False): Figure(74.47, minutes=138.52),
    ("higgs", "wasap", True): Figure(74.88, minutes=108.33),
    ("higgs", "sequential", False): Figure(73.67, minutes=216.67),
    ("higgs", "sequential", True): Figure(73.76, minutes=182.3),
    ("fashion_mnist", "wassp", False): Figure(90.52, minutes=90.6),
    ("fashion_mnist", "wassp", True): Figure(89.96, minutes=77.6),
    ("fashion_mnist", "wasap", False): Figure(91.23, minutes=87.25),
    ("fashion_mnist", "wasap", True): Figure(90.15, minutes=74.85),
    ("fashion_mnist", "sequential", False): Figure(91.38, minutes=137.5),
    ("fashion_mnist", "sequential", True): Figure(90.12, minutes=96.25),
    ("cifar10", "wassp", False): Figure(67.13, minutes=309.9),
    ("cifar10", "wassp", True): Figure(66.88, minutes=279.9),
    ("cifar10", "wasap", False): Figure(69.03, minutes=281.9),
    ("cifar10", "wasap", True): Figure(68.51, minutes=246.5),
    ("cifar10", "sequential", False): Figure(69.83, minutes=590),
    ("cifar10", "sequential", True): Figure(68.55, minutes=530),
}

# Fashion-MNIST, by All-ReLU's slope; 0 stands for ReLU. Only the best are printed as such, the others are read off.
TABLE5: dict[float, Figure] = {
    slope: Figure(accuracy)
    for slope, accuracy in (
        (0.0, 90.48), (0.05, 90.48), (0.1, 90.86), (0.2, 90.87), (0.3, 90.75), (0.4, 91.00), (0.5, 91.08),
        (0.6, 91.38), (0.7, 91.09), (0.8, 91.16), (0.9, 91.02),
    )
}  # fmt: skip

# by data set and percentile; 0 stands for the network as it was trained
TABLE6: dict[tuple[str, int], Figure] = {
    (name, percentile): Figure(accuracy, end=connections)
    for name, row in {
        "leukemia": ((86.42, 1_684_944), (86.89, 1_074_251), (86.69, 1_034_977), (85.84, 992_711), (85.84, 947_981),
                     (85.69, 901_289)),
        "higgs": ((73.67, 50_224), (73.00, 48_508), (73.16, 46_693), (72.61, 44_897), (72.27, 42_601),
                  (71.51, 40_491)),
        "madelon": ((71.33, 19_006), (71.33, 18_385), (72.00, 17_661), (70.33, 16_883), (69.16, 16_106),
                    (65.33, 15_297)),
        "fashion_mnist": ((91.38, 125_901), (90.66, 120_894), (90.12, 115_486), (89.37, 109_923), (88.70, 104_158),
                          (85.97, 98_360)),
        "cifar10": ((69.83, 381_758), (69.53, 368_062), (68.61, 352_791), (68.38, 336_968), (67.35, 320_316),
                    (66.57, 276_349)),
    }.items()
    for percentile, (accuracy, connections) in zip((0, 5, 10, 15, 20, 25), row, strict=True)
}  # fmt: skip
