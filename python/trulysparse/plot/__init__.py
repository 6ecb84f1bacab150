# SPDX-License-Identifier: BSD-3-Clause
"""Pictures; matplotlib is imported when one is drawn."""

from trulysparse.plot.curve import learning_curve

__all__ = ["learning_curve"]
