#include "converter/checkpoint.h"

#include <algorithm>
#include <vector>

namespace taskpress {

const CheckpointTensor* Checkpoint::Find(std::string_view name) const {
  const std::span<const CheckpointTensor> all = tensors();
  const auto found = std::ranges::lower_bound(all, name, {}, &CheckpointTensor::name);
  return found != all.end() && found->name == name ? &*found : nullptr;
}

Result<size_t> Checkpoint::IndexOf(const CheckpointTensor& tensor) const {
  const CheckpointTensor* own = Find(tensor.name);
  if (own == nullptr) return Fail(ErrorCode::kReadFailed, "{}: has no tensor \"{}\"", description(), tensor.name);
  return static_cast<size_t>(own - tensors().data());
}

int64_t MatrixRows(const Shape& shape) { return shape.size() < 2 ? 1 : shape.front(); }

int64_t MatrixColumns(const Shape& shape) {
  if (shape.size() < 2) return NumElements(shape).value_or(0);
  return NumElements(Shape(shape.begin() + 1, shape.end())).value_or(0);
}

}  // namespace taskpress
