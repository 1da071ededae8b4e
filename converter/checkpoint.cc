#include "converter/checkpoint.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "schema/base/checked_math.h"

namespace taskpress {
namespace {

// True when [first, first + count) lies inside [0, size).
bool Inside(int64_t first, int64_t count, int64_t size) { return first >= 0 && count >= 0 && first <= size && count <= size - first; }

}  // namespace

const CheckpointTensor* Checkpoint::Find(std::string_view name) const {
  const std::span<const CheckpointTensor> all = tensors();
  const auto found = std::ranges::lower_bound(all, name, {}, &CheckpointTensor::name);
  return found != all.end() && found->name == name ? &*found : nullptr;
}

int64_t MatrixRows(const Shape& shape) { return shape.size() < 2 ? 1 : shape.front(); }

int64_t MatrixColumns(const Shape& shape) {
  if (shape.size() < 2) return NumElements(shape).value_or(0);
  return NumElements(Shape(shape.begin() + 1, shape.end())).value_or(0);
}

Status CheckRowBlock(const CheckpointTensor& tensor, RowBlock block, uint64_t room) {
  const bool inside = Inside(block.first_row, block.num_rows, MatrixRows(tensor.shape)) &&
                      Inside(block.first_column, block.num_columns, MatrixColumns(tensor.shape));
  const std::optional<int64_t> elements = inside ? CheckedMul(block.num_rows, block.num_columns) : std::nullopt;
  if (elements && std::cmp_equal(*elements, room)) return {};
  return Fail(ErrorCode::kReadFailed, "tensor \"{}\" {}: block of rows [{}, +{}), columns [{}, +{}) does not fit into it or into {} floats",
              tensor.name, ToString(tensor.shape), block.first_row, block.num_rows, block.first_column, block.num_columns, room);
}

}  // namespace taskpress
