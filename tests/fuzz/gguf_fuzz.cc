// Tensors of a file that is accepted lie inside it, one after the other, with the bytes their shapes need, and can be unpacked.
#include <cstdint>
#include <span>
#include <vector>

#include "quantizer/ggml_blocks.h"
#include "schema/gguf.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace taskpress;
  const ByteView bytes = std::as_bytes(std::span(data, size));
  const Result<GgufFile> file = ParseGguf(bytes);
  if (!file) {
    Require(!file.error().message.empty());
    return 0;
  }
  for (size_t i = 0; i < file->tensors.size(); ++i) {
    const GgufTensor& tensor = file->tensors[i];
    Require(i == 0 || file->tensors[i - 1].name < tensor.name);
    const GgmlTypeInfo& info = InfoOf(tensor.type);
    const int64_t values = NumElements(tensor.shape).value();
    Require(values / info.block_values * info.block_bytes == static_cast<int64_t>(tensor.bytes.size()));
    Require(tensor.bytes.data() >= bytes.data() && tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + size);
    std::vector<float> unpacked(static_cast<size_t>(values));
    DequantizeGgml(tensor.type, tensor.bytes, unpacked);
  }
  return 0;
}
