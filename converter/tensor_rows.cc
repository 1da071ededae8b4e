#include "converter/tensor_rows.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "quantizer/bf16_kernels.h"
#include "schema/base/checked_math.h"
#include "schema/base/half.h"

namespace taskpress {
namespace {

// Loads through memcpy, because tensors of a file may begin at any byte (S12); compilers make vector loads of it.
template <typename Stored, typename Convert>
void ConvertElements(const std::byte* from, std::span<float> out, Convert convert) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = convert(LoadLittle<Stored>(from + i * sizeof(Stored)));
}

template <typename Stored>
void CastElements(const std::byte* from, std::span<float> out) {
  ConvertElements<Stored>(from, out, [](Stored value) { return static_cast<float>(value); });
}

// True when [first, first + count) lies inside [0, size).
bool Inside(int64_t first, int64_t count, int64_t size) { return first >= 0 && count >= 0 && first <= size && count <= size - first; }

uint64_t ElementBytes(DType type) { return static_cast<uint64_t>(InfoOf(type).bits) / 8; }

}  // namespace

Status CheckBlock(std::string_view name, const Shape& shape, RowBlock block, uint64_t room) {
  const bool inside =
      Inside(block.first_row, block.num_rows, MatrixRows(shape)) && Inside(block.first_column, block.num_columns, MatrixColumns(shape));
  const std::optional<int64_t> elements = inside ? CheckedMul(block.num_rows, block.num_columns) : std::nullopt;
  if (elements && std::cmp_equal(*elements, room)) return {};
  return Fail(ErrorCode::kReadFailed, "tensor \"{}\" {}: block of rows [{}, +{}), columns [{}, +{}) does not fit into it or into {} floats",
              name, ToString(shape), block.first_row, block.num_rows, block.first_column, block.num_columns, room);
}

void ToFloat(DType type, const std::byte* from, std::span<float> out) {
  switch (type) {
    case DType::kF64:
      return CastElements<double>(from, out);
    case DType::kF32:
      return CastElements<float>(from, out);
    case DType::kF16:
      return ConvertElements<uint16_t>(from, out, F16ToFloat);
    case DType::kBF16:
      return Bf16RowToFloat(from, out);
    case DType::kI64:
      return CastElements<int64_t>(from, out);
    case DType::kI32:
      return CastElements<int32_t>(from, out);
    case DType::kI16:
      return CastElements<int16_t>(from, out);
    case DType::kI8:
      return CastElements<int8_t>(from, out);
    case DType::kU8:
      return CastElements<uint8_t>(from, out);
    case DType::kBool:
      return ConvertElements<uint8_t>(from, out, [](uint8_t value) { return value != 0 ? 1.0F : 0.0F; });
    case DType::kI4:
      std::unreachable();  // no checkpoint stores it plainly
  }
}

void ReadBlock(DType type, ByteView bytes, int64_t columns, const RowBlock& block, std::span<float> out) {
  if (out.empty()) return;
  const auto row_elements = static_cast<uint64_t>(columns);
  const auto first = static_cast<uint64_t>(block.first_row) * row_elements + static_cast<uint64_t>(block.first_column);
  const auto row_length = static_cast<uint64_t>(block.num_columns);
  const std::byte* from = bytes.data() + first * ElementBytes(type);
  if (row_length == row_elements) {
    ToFloat(type, from, out);
    return;
  }
  if (type == DType::kBF16) {
    Bf16ColumnsToFloat(from, row_elements * sizeof(uint16_t), static_cast<size_t>(block.num_rows), out);
    return;
  }
  for (; !out.empty(); out = out.subspan(row_length), from += row_elements * ElementBytes(type)) {
    ToFloat(type, from, out.first(row_length));
  }
}

void ReadTransposedBlock(DType type, ByteView bytes, int64_t stored_columns, const RowBlock& block, std::span<float> out) {
  // Square tiles: a stored row gives a run of elements that are converted together, and the column they become stays in the first cache.
  constexpr size_t kTile = 64;
  std::array<float, kTile> run;
  const auto rows = static_cast<size_t>(block.num_rows);
  const auto columns = static_cast<size_t>(block.num_columns);
  for (size_t row = 0; row < rows; row += kTile) {
    const std::span<float> now = std::span(run).first(std::min(kTile, rows - row));
    for (size_t column = 0; column < columns; ++column) {
      const uint64_t first = (static_cast<uint64_t>(block.first_column) + column) * static_cast<uint64_t>(stored_columns) +
                             static_cast<uint64_t>(block.first_row) + row;
      ToFloat(type, bytes.data() + first * ElementBytes(type), now);
      for (size_t i = 0; i < now.size(); ++i) out[(row + i) * columns + column] = now[i];
    }
  }
}

}  // namespace taskpress
