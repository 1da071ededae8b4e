// Dimensions of a tensor, outermost first, with sizes that cannot overflow unnoticed.
#ifndef TASKPRESS_SCHEMA_SHAPE_H_
#define TASKPRESS_SCHEMA_SHAPE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schema/dtype.h"

namespace taskpress {

using Shape = std::vector<int64_t>;

// Product of the dimensions (1 for a scalar); nothing when a dimension is negative or the product overflows.
[[nodiscard]] std::optional<int64_t> NumElements(const Shape& shape);
// Bytes of a dense tensor; sub-byte types are packed back to back and the last byte is padded.
[[nodiscard]] std::optional<uint64_t> NumBytes(DType type, const Shape& shape);
// "[1,128,2048]"
[[nodiscard]] std::string ToString(const Shape& shape);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_SHAPE_H_
