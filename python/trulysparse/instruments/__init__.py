# SPDX-License-Identifier: BSD-3-Clause
"""What a researcher of sparse training wants to see: densities, exploration, gradient flow, FLOPs, alike masks."""

from trulysparse.instruments.arithmetic import Flops, flops
from trulysparse.instruments.flow import GradientFlow, GradientFlowProbe, gradient_flow
from trulysparse.instruments.masks import MaskSimilarity, mask_similarity
from trulysparse.instruments.monitor import Monitor

__all__ = [
    "Flops",
    "GradientFlow",
    "GradientFlowProbe",
    "MaskSimilarity",
    "Monitor",
    "flops",
    "gradient_flow",
    "mask_similarity",
]
