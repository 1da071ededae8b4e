// The checks of an ONNX file and of one tensor in it that speak protobuf; used by converter/onnx_model.cc alone.
#ifndef TASKPRESS_CONVERTER_ONNX_WIRE_H_
#define TASKPRESS_CONVERTER_ONNX_WIRE_H_

#include <onnx/onnx.pb.h>

#include <optional>
#include <string>
#include <string_view>

#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/dtype.h"
#include "schema/shape.h"

namespace taskpress {

// N1, N2: what parsing the file would cost, before the parser allocates anything.
Status CheckOnnxWire(ByteView file);

// N5: the element type; nothing for a type that exists and that no weight is read from.
Result<std::optional<DType>> OnnxElementType(const onnx::TensorProto& tensor);
// "FLOAT", "type 23"
std::string OnnxTypeName(int type);

// N6
Result<Shape> OnnxShape(const onnx::TensorProto& tensor);

// N7, N8: the tensor's inline bytes, taken out of the message.
Result<std::string> TakeInlineBytes(onnx::TensorProto& tensor, DType type, const Shape& shape);

// N7: where external data lies.
struct ExternalData {
  std::string location;
  uint64_t offset = 0;
  std::optional<uint64_t> length;
};
// Nothing when the tensor's data is inline.
Result<std::optional<ExternalData>> FindExternalData(const onnx::TensorProto& tensor);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_ONNX_WIRE_H_
