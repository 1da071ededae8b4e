// A named tensor somebody else owns. Only made through Make(), so the bytes always fit type and shape and nobody checks again.
#ifndef TASKPRESS_SCHEMA_TENSOR_VIEW_H_
#define TASKPRESS_SCHEMA_TENSOR_VIEW_H_

#include <string>

#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/dtype.h"
#include "schema/shape.h"

namespace taskpress {

class TensorView {
 public:
  // kSafetensorsTensor unless `bytes` is exactly what `type` and `shape` need.
  static Result<TensorView> Make(std::string name, DType type, Shape shape, ByteView bytes);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] DType type() const { return type_; }
  [[nodiscard]] const Shape& shape() const { return shape_; }
  [[nodiscard]] ByteView bytes() const { return bytes_; }

 private:
  TensorView(std::string name, DType type, Shape shape, ByteView bytes)
      : name_(std::move(name)), type_(type), shape_(std::move(shape)), bytes_(bytes) {}

  std::string name_;
  DType type_;
  Shape shape_;
  ByteView bytes_;
};

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_TENSOR_VIEW_H_
