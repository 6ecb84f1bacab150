// SPDX-License-Identifier: BSD-3-Clause
// Turned, shifted and mirrored images the slow, readable way: every value of every pixel by itself, in double.
#pragma once

#include <vector>

#include "trulysparse/augment.hpp"

namespace trulysparse::ref {

// One image, given the draw that belongs to it; `image` and the result hold shape.features() values.
std::vector<double> augmented(const std::vector<double>& image, const ImageShape& shape, const ImageChanges& changes,
                              const Block& words);

}  // namespace trulysparse::ref
