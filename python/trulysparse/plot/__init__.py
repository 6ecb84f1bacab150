# SPDX-License-Identifier: BSD-3-Clause
"""Pictures; matplotlib is imported when one is drawn."""

from trulysparse.plot.curve import learning_curve
from trulysparse.plot.curves import learning_curves
from trulysparse.plot.heat_map import input_heat_map

__all__ = ["input_heat_map", "learning_curve", "learning_curves"]
