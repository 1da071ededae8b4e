// Which tensor of an ONNX model is which weight, by the names that PyTorch's exporters leave and by the nodes that read it.
#ifndef TASKPRESS_CONVERTER_ONNX_WEIGHTS_H_
#define TASKPRESS_CONVERTER_ONNX_WEIGHTS_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "converter/checkpoint.h"
#include "converter/onnx_blocks.h"
#include "converter/onnx_model.h"
#include "schema/base/error.h"
#include "schema/dtype.h"
#include "schema/shape.h"

namespace taskpress {

struct OnnxWeight {
  std::string name;  // as the Hugging Face checkpoint calls it
  DType type = DType::kF32;
  Shape shape;                         // as the checkpoint has it: [out, in] of a linear layer
  const OnnxTensor* stored = nullptr;  // of the model; null for a weight in blocks
  bool transposed = false;             // stored [in, out]
  std::optional<OnnxBlocks> blocks;
};

// Rules N10 to N17 of FORMATS.md, ONNX model. Sorted by name. kOnnxUnsupported lists every tensor that may be a weight and got no name, or
// two that got the same. The tensors stay the model's.
Result<std::vector<OnnxWeight>> MapOnnxWeights(const OnnxModel& model);

// A block of the weight, which was checked to lie inside it, as float32.
void ReadOnnxWeight(const OnnxWeight& weight, const RowBlock& block, std::span<float> out);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_ONNX_WEIGHTS_H_
