// Weights of a model, wherever they come from. Everything above this line speaks of names, shapes and float rows.
#ifndef TASKPRESS_CONVERTER_CHECKPOINT_H_
#define TASKPRESS_CONVERTER_CHECKPOINT_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/dtype.h"
#include "schema/shape.h"

namespace taskpress {

struct CheckpointTensor {
  std::string name;
  DType type = DType::kF32;  // as stored
  Shape shape;
};

// A block of a tensor seen as a matrix: rank 1 is one row, rank n is [dim0, product of the rest].
struct RowBlock {
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t first_column = 0;
  int64_t num_columns = 0;
};

class Checkpoint {
 public:
  Checkpoint() = default;
  virtual ~Checkpoint() = default;
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  // Sorted by name.
  [[nodiscard]] virtual std::span<const CheckpointTensor> tensors() const = 0;
  [[nodiscard]] const CheckpointTensor* Find(std::string_view name) const;
  // Where the tensor of this name stands in tensors(). kReadFailed when it is another checkpoint's.
  Result<size_t> IndexOf(const CheckpointTensor& tensor) const;
  // float32 values of a block, row-major into out [num_rows * num_columns]. Exact for bf16, f16, f32, integers up to 16 bits and bool (0 or
  // 1); f64, i32 and i64 round to nearest. Safe to call from several threads.
  virtual Status ReadRows(const CheckpointTensor& tensor, RowBlock block, std::span<float> out) const = 0;
  // Every file that the values are read from.
  [[nodiscard]] virtual std::vector<std::filesystem::path> files() const = 0;
  // The stored tensor whose rows of the same numbers hold what this tensor's rows are made from. Slices of one checkpoint share origins.
  [[nodiscard]] virtual const CheckpointTensor* Origin(const CheckpointTensor& tensor) const { return Find(tensor.name); }
  // Orders tensors as a reader meets them that reads files() from the first byte to the last.
  [[nodiscard]] virtual uint64_t Position(const CheckpointTensor& tensor) const { return IndexOf(tensor).value_or(0); }
  // A hint that these rows are wanted soon.
  virtual void WillRead(const CheckpointTensor& tensor, int64_t first_row, int64_t num_rows) const {
    static_cast<void>(tensor);
    static_cast<void>(first_row);
    static_cast<void>(num_rows);
  }
  // The folder or file, for messages.
  [[nodiscard]] virtual std::string description() const = 0;
};

// A folder with config.json and model.safetensors, or model.safetensors.index.json and its shards; or one .safetensors file.
// Strict: every name of the index present exactly once, shards inside the folder, pickle files refused. FORMATS, checkpoint folder.
Result<std::unique_ptr<Checkpoint>> OpenSafetensorsCheckpoint(const std::filesystem::path& path);

// An .onnx file as PyTorch's exporters write it, with the files of external data beside it. Tensors carry the names and shapes of the
// Hugging Face checkpoint: matrices stored [in, out] are shown [out, in], and weights in blocks of 4 or 8 bits (MatMulNBits) as the floats
// they mean. kOnnxUnsupported lists every tensor that may be a weight and cannot be mapped. FORMATS, ONNX model.
Result<std::unique_ptr<Checkpoint>> OpenOnnxCheckpoint(const std::filesystem::path& file);

// The matrix that RowBlock speaks of; a scalar is [1, 1]. A shape with zero rows whose columns overflow has 0 columns.
[[nodiscard]] int64_t MatrixRows(const Shape& shape);
[[nodiscard]] int64_t MatrixColumns(const Shape& shape);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CHECKPOINT_H_
