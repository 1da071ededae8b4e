#include "quantizer/gptq_source.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "quantizer/block_scale.h"
#include "quantizer/clip.h"
#include "quantizer/quantize.h"
#include "quantizer/row_kernels.h"
#include "schema/int_packing.h"

namespace taskpress {
namespace {

// The scale of the least error in what no later column makes up for.
float ClippedBlockScale(std::span<const float> values, std::span<const double> importance) {
  thread_local ClipSearch search;
  thread_local std::vector<float> weights;
  weights.assign(importance.begin(), importance.end());
  if (const float scale = search.FindForBlock(values, weights); scale > 0) return scale;
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return NearestBlockScale(largest / static_cast<float>(kInt4Limit));
}

}  // namespace

GptqOptions DampingFor(const SecondMoments& moments, const QuantSpec& spec) {
  // At four tokens a column and more the share of each column's own damping is small; with one, a fifth.
  constexpr double kOwnShareAtOneTokenPerColumn = 0.2;
  const double per_column = static_cast<double>(moments.tokens) / static_cast<double>(moments.columns);
  return {.damping = 0.01,
          .own_damping = std::min(0.5, kOwnShareAtOneTokenPerColumn / std::max(per_column, 1e-9)),
          .added_diagonal = moments.activation_step2 / 12,
          .act_order = spec.block_size == 0};
}

Status GptqRows(const GptqFactor& factor, const QuantSpec& spec, std::span<const float> importance, std::span<const float> values,
                int64_t num_rows, ByteSpan packed, std::span<float> scales, int64_t first_row) {
  const int64_t columns = factor.columns();
  QuantSpec clip = spec;
  clip.method = QuantMethod::kClip;
  TRY(QuantizeRows(clip, values, num_rows, columns, packed, scales, first_row, importance));
  const bool four_bits = spec.type == DType::kI4;
  GptqGrid grid{.lo = four_bits ? -8 : -kInt8Limit, .hi = four_bits ? kInt4Limit : kInt8Limit, .block_size = spec.block_size};
  if (spec.block_size > 0) {
    grid.choose_scale = &ClippedBlockScale;
  } else {
    grid.refit_scales = true;
  }
  std::vector<int8_t> codes(values.size());
  TRY(GptqQuantize(factor, grid, values, num_rows, scales, codes, {.threads = 1, .stop = nullptr}));
  if (four_bits) {
    PackInt4(codes, packed);
  } else {
    std::ranges::transform(codes, packed.begin(), [](int8_t code) { return static_cast<std::byte>(code); });
  }
  return {};
}

}  // namespace taskpress
