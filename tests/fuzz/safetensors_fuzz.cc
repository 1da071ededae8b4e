// What the reader accepts must lie inside the file, be sorted by unique names, and cover the data exactly.
#include <cstdint>
#include <span>

#include "schema/safetensors.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace taskpress;
  const ByteView file = std::as_bytes(std::span(data, size));
  std::map<std::string, std::string> metadata;
  const Result<std::vector<TensorView>> tensors = ParseSafetensors(file, &metadata);
  if (!tensors) {
    Require(!tensors.error().message.empty());
    return 0;
  }
  const auto header = LoadLittle<uint64_t>(file.data());
  uint64_t covered = 0;
  for (size_t i = 0; i < tensors->size(); ++i) {
    const TensorView& tensor = (*tensors)[i];
    Require(NumBytes(tensor.type(), tensor.shape()) == tensor.bytes().size());
    Require(i == 0 || (*tensors)[i - 1].name() < tensor.name());
    covered += tensor.bytes().size();
    if (tensor.bytes().empty()) continue;
    Require(tensor.bytes().data() >= file.data() + 8 + header);
    Require(tensor.bytes().data() + tensor.bytes().size() <= file.data() + size);
  }
  Require(covered == size - 8 - header);
  return 0;
}
