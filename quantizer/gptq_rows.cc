#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>

#include "quantizer/gptq.h"
#include "quantizer/gptq_tile.h"
#include "quantizer/row_kernels.h"
#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

constexpr int64_t kMaxTilePanels = 8;
constexpr int64_t kTileFloats = 16 << 20;  // per worker: five matrices of the tile's rows
constexpr uint32_t kInfinityBits = 0x7f800000;

size_t Size(int64_t count) { return static_cast<size_t>(count); }

Status CheckGrid(const GptqFactor& factor, const GptqGrid& grid) {
  if (grid.lo < -128 || grid.hi > 127 || grid.lo >= grid.hi) {
    return Fail(ErrorCode::kQuantShape, "codes from {} to {} are no range of int8", grid.lo, grid.hi);
  }
  if (grid.block_size < 0 || (grid.block_size > 0 && factor.columns() % grid.block_size != 0)) {
    return Fail(ErrorCode::kQuantShape, "blocks of {} do not divide {} columns", grid.block_size, factor.columns());
  }
  if (grid.block_size > 0 && factor.act_order()) {
    return Fail(ErrorCode::kQuantShape, "blocks of columns are rounded in their order; the factor was made with act_order");
  }
  if (grid.choose_scale && grid.block_size == 0) {
    return Fail(ErrorCode::kQuantShape, "scales are chosen on the way for blocks of columns only");
  }
  return {};
}

int64_t BlocksOf(const GptqFactor& factor, int64_t block_size) { return block_size == 0 ? 1 : factor.columns() / block_size; }

Status CheckRows(const GptqFactor& factor, int64_t block_size, std::span<const float> values, int64_t rows, std::span<const float> scales,
                 size_t codes) {
  const std::optional<int64_t> count = CheckedMul(rows, factor.columns());
  if (rows < 0 || !count || values.size() != Size(*count) || codes != values.size()) {
    return Fail(ErrorCode::kQuantShape, "{} values and {} codes do not make [{}, {}]", values.size(), codes, rows, factor.columns());
  }
  const int64_t blocks = BlocksOf(factor, block_size);
  if (scales.size() != Size(rows * blocks)) {
    return Fail(ErrorCode::kQuantShape, "{} rows of {} blocks need as many scales, {} given", rows, blocks, scales.size());
  }
  for (int64_t row = 0; row < rows; ++row) {
    const std::span<const float> of_row = values.subspan(Size(row * factor.columns()), Size(factor.columns()));
    if (VectorRowKernels().max_magnitude_bits(of_row) >= kInfinityBits) {
      const auto bad = std::ranges::find_if(of_row, [](float value) { return !std::isfinite(value); });
      return Fail(ErrorCode::kQuantValue, "row {}, column {}: the value is {}, every weight must be finite", row, bad - of_row.begin(),
                  *bad);
    }
  }
  const auto bad = std::ranges::find_if(scales, [](float scale) { return !std::isnormal(scale) || scale < 0; });
  if (bad != scales.end()) {
    return Fail(ErrorCode::kQuantValue, "row {}: the scale {} is not a positive normal number", (bad - scales.begin()) / blocks, *bad);
  }
  return {};
}

// Runs body(tile, first row, rows) for all rows; tiles are kept per worker.
template <typename Body>
Status ForEachTile(const GptqFactor& factor, const GptqGrid& grid, int64_t rows, const RowWork& work, const DenseKernels& kernels,
                   const Body& body) {
  const int64_t all = NumPanels(rows);
  const int64_t fitting = std::clamp<int64_t>(kTileFloats / (5 * factor.columns() * kPanelWidth), 1, kMaxTilePanels);
  // No fewer tiles than workers.
  const int64_t workers = RowWorkers(all, 1, work);
  const int64_t panels = std::clamp<int64_t>((all + workers - 1) / workers, 1, fitting);
  std::vector<std::unique_ptr<GptqTile>> tiles(Size(RowWorkers(all, panels, work)));
  return ForEachRowBlock(all, panels, work, [&](const RowRange& range) -> Status {
    std::unique_ptr<GptqTile>& tile = tiles[Size(range.worker)];
    if (tile == nullptr) tile = std::make_unique<GptqTile>(factor, grid, kernels, panels);
    const int64_t first = range.first_row * kPanelWidth;
    return body(*tile, first, std::min(rows - first, range.count * kPanelWidth));
  });
}

Status CheckObjective(double objective, int64_t row) {
  if (std::isfinite(objective)) return {};
  return Fail(ErrorCode::kQuantValue, "row {}: its error under the second moments is not finite", row);
}

}  // namespace

Result<GptqResult> GptqQuantize(const GptqFactor& factor, const GptqGrid& grid, std::span<const float> values, int64_t rows,
                                std::span<float> scales, std::span<int8_t> codes, const RowWork& work, const DenseKernels& kernels) {
  TRY(CheckGrid(factor, grid));
  TRY(CheckRows(factor, grid.block_size, values, rows, scales, codes.size()));
  const int64_t columns = factor.columns();
  const int64_t blocks = BlocksOf(factor, grid.block_size);
  GptqResult result;
  result.objectives.resize(Size(rows));
  std::atomic<int64_t> plain_rows = 0;
  std::atomic<int64_t> refitted = 0;
  TRY(ForEachTile(factor, grid, rows, work, kernels, [&](GptqTile& tile, int64_t first, int64_t count) -> Status {
    const std::span<float> own_scales = scales.subspan(Size(first * blocks), Size(count * blocks));
    tile.Load(values.subspan(Size(first * columns), Size(count * columns)), own_scales, count);
    tile.Quantize();
    plain_rows += tile.TakeBetterPlainRows();
    if (grid.refit_scales) refitted += tile.RefitScales();
    tile.Store(own_scales, codes.subspan(Size(first * columns), Size(count * columns)));
    for (int64_t row = 0; row < count; ++row) {
      TRY(CheckObjective(tile.objective(row), first + row));
      result.objectives[Size(first + row)] = tile.objective(row);
    }
    return {};
  }));
  const auto bad = std::ranges::find_if(scales, [](float scale) { return !std::isnormal(scale) || scale < 0; });
  if (bad != scales.end()) {
    return Fail(ErrorCode::kQuantValue, "row {}: the scale {} was chosen, it must be positive and normal", (bad - scales.begin()) / blocks,
                *bad);
  }
  result.plain_rows = plain_rows;
  result.refitted_scales = refitted;
  return result;
}

Result<std::vector<double>> GptqObjective(const GptqFactor& factor, int64_t block_size, std::span<const float> values, int64_t rows,
                                          std::span<const float> scales, std::span<const int8_t> codes, const RowWork& work,
                                          const DenseKernels& kernels) {
  const GptqGrid grid{.lo = -128, .hi = 127, .block_size = block_size};
  TRY(CheckGrid(factor, grid));
  TRY(CheckRows(factor, block_size, values, rows, scales, codes.size()));
  const int64_t columns = factor.columns();
  const int64_t blocks = BlocksOf(factor, block_size);
  std::vector<double> objectives(Size(rows));
  TRY(ForEachTile(factor, grid, rows, work, kernels, [&](GptqTile& tile, int64_t first, int64_t count) -> Status {
    tile.Load(values.subspan(Size(first * columns), Size(count * columns)), scales.subspan(Size(first * blocks), Size(count * blocks)),
              count);
    tile.SetCodes(codes.subspan(Size(first * columns), Size(count * columns)));
    tile.MeasureCodes();
    for (int64_t row = 0; row < count; ++row) {
      TRY(CheckObjective(tile.objective(row), first + row));
      objectives[Size(first + row)] = tile.objective(row);
    }
    return {};
  }));
  return objectives;
}

}  // namespace taskpress
