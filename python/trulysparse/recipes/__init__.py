# SPDX-License-Identifier: BSD-3-Clause
"""Settings for known data sets: those of the paper, and tuned ones for networks of as many connections.

`get` returns a recipe, `names` what there is. `trulysparse train NAME --recipe tuned` uses the same ones.
"""

from trulysparse.recipes.recipe import KINDS, Recipe, get, names

__all__ = ["KINDS", "Recipe", "get", "names"]
