#include "schema/tensor_view.h"

namespace taskpress {

Result<TensorView> TensorView::Make(std::string name, DType type, Shape shape, ByteView bytes) {
  const std::optional<uint64_t> needed = NumBytes(type, shape);
  if (!needed || *needed != bytes.size()) {
    return Fail(ErrorCode::kSafetensorsTensor, "tensor \"{}\": {} {} needs {} bytes, the data range holds {}", name, NameOf(type),
                ToString(shape), needed ? std::to_string(*needed) : "more than 2^64", bytes.size());
  }
  return TensorView(std::move(name), type, std::move(shape), bytes);
}

}  // namespace taskpress
