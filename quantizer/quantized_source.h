// A weight of the checkpoint as the bytes of its quantized form, computed row by row when somebody asks.
//
// Nothing is kept: asking twice reads and quantizes twice. Memory per call is one block of floats (1 MiB, or one row when rows are longer).
#ifndef TASKPRESS_QUANTIZER_QUANTIZED_SOURCE_H_
#define TASKPRESS_QUANTIZER_QUANTIZED_SOURCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quantizer/quant_spec.h"
#include "schema/base/error.h"
#include "schema/byte_source.h"

namespace taskpress {

// Fills values [count, columns] with rows first_row ... first_row + count - 1 of a matrix. Called from several threads at once.
using FloatRowReader = std::function<Status(int64_t first_row, int64_t count, std::span<float> values)>;

// QuantizeRows for one weight, with what is known of it; of the same rows always the same bytes. Called from several threads at once.
using RowQuantizer =
    std::function<Status(std::span<const float> values, int64_t num_rows, ByteSpan packed, std::span<float> scales, int64_t first_row)>;

struct QuantizedRowsInput {
  std::string name;  // for messages
  QuantSpec spec;
  int64_t num_rows = 0;
  int64_t columns = 0;
  FloatRowReader reader;
  const void* origin = nullptr;                                          // see RowSource
  std::function<void(int64_t first_row, int64_t count)> will_read = {};  // see RowSource; may be empty
  // Multiplied into the scales of integer types and into the values of float types (sqrt(hidden) of the embedding tables). Finite and > 0.
  float scale_factor = 1.0F;
  RowQuantizer quantizer = {};                // instead of QuantizeRows with column_importance
  std::vector<float> column_importance = {};  // [columns] weights of squared errors for kClip, finite and not negative; empty: 1 each
};

class QuantizedRows final : public RowSource {
 public:
  // kQuantShape when spec and shape do not go together, scale_factor is not finite and positive, or another than 1 for blocks (their scales
  // have few bits), or column_importance does not fit.
  static Result<std::shared_ptr<const QuantizedRows>> Make(QuantizedRowsInput input);

  [[nodiscard]] const std::string& name() const { return input_.name; }
  [[nodiscard]] const QuantSpec& spec() const { return input_.spec; }
  [[nodiscard]] int64_t columns() const { return input_.columns; }
  [[nodiscard]] int64_t num_rows() const override { return input_.num_rows; }
  [[nodiscard]] const void* origin() const override { return input_.origin; }
  void WillRead(int64_t first_row, int64_t count) const override {
    if (input_.will_read) input_.will_read(first_row, count);
  }
  [[nodiscard]] uint64_t row_bytes() const override { return row_bytes_; }
  // 0 for float types, 1 or the number of blocks for integer types.
  [[nodiscard]] int64_t scales_per_row() const override { return input_.spec.ScalesPerRow(input_.columns); }

  // kQuantValue naming tensor, row and column of a value that is not finite; the reader's errors as they are.
  Status ReadRows(int64_t first_row, int64_t count, ByteSpan packed, std::span<float> scales) const override;
  // The floats these rows stand for: what the reader gives, times scale_factor. values: [count, columns].
  Status ReadFloats(int64_t first_row, int64_t count, std::span<float> values) const;

 private:
  QuantizedRows(QuantizedRowsInput input, uint64_t row_bytes) : input_(std::move(input)), row_bytes_(row_bytes) {}
  Status CheckRows(int64_t first_row, int64_t count) const;
  Status ReadBlock(int64_t first_row, int64_t count, std::span<float> values, ByteSpan packed, std::span<float> scales) const;

  QuantizedRowsInput input_;
  uint64_t row_bytes_;
};

// What rounding took off the values of rows [first_row, +count) of a matrix that is stored in these pieces of its columns, side by side:
// [count, columns of all].
Result<std::vector<float>> RoundingErrors(std::span<const std::shared_ptr<const QuantizedRows>> pieces, int64_t first_row, int64_t count);

Result<SharedBytes> MakeQuantizedSource(QuantizedRowsInput input);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_QUANTIZED_SOURCE_H_
