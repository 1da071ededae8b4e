// What the reader accepts must hold as many bytes as its shapes need, and what is mapped must be readable from the first row to the last.
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "converter/onnx_model.h"
#include "converter/onnx_weights.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace taskpress;
  const Result<OnnxModel> model = OnnxModel::Parse(std::as_bytes(std::span(data, size)), "/nonexistent");
  if (!model) {
    Require(!model.error().message.empty());
    return 0;
  }
  for (const OnnxTensor& tensor : model->tensors()) {
    Require(tensor.file == nullptr);
    Require(tensor.type ? NumBytes(*tensor.type, tensor.shape) == tensor.bytes.size() : tensor.bytes.empty());
  }
  const Result<std::vector<OnnxWeight>> weights = MapOnnxWeights(*model);
  if (!weights) {
    Require(!weights.error().message.empty());
    return 0;
  }
  for (size_t i = 0; i < weights->size(); ++i) {
    const OnnxWeight& weight = (*weights)[i];
    Require(i == 0 || (*weights)[i - 1].name < weight.name);
    const int64_t columns = MatrixColumns(weight.shape);
    if (NumElements(weight.shape) == 0) continue;
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t r = 0; r < MatrixRows(weight.shape); ++r) ReadOnnxWeight(weight, {r, 1, 0, columns}, row);
  }
  return 0;
}
