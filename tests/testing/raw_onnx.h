// ONNX models put together by hand, and checkpoints written as PyTorch's exporters write them, for machines without PyTorch.
//
// What each exporter writes was taken from real files: tests/testing/export_onnx.py makes them, and compare_checkpoints reads them.
#ifndef TASKPRESS_TESTS_TESTING_RAW_ONNX_H_
#define TASKPRESS_TESTS_TESTING_RAW_ONNX_H_

#include <onnx/onnx.pb.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "converter/checkpoint.h"

namespace taskpress {

// A model that imports an operator set and is empty otherwise.
onnx::ModelProto EmptyOnnx();

// A tensor with raw_data.
onnx::TensorProto RawOnnxTensor(std::string name, int type, const std::vector<int64_t>& dims, std::string bytes);
onnx::TensorProto OnnxFloats(std::string name, const std::vector<int64_t>& dims, std::span<const float> values);

void AddInitializer(onnx::ModelProto& model, onnx::TensorProto tensor);

// A node with one output, called as the node with "_out" behind it.
onnx::NodeProto& AddOnnxNode(onnx::ModelProto& model, std::string_view op, std::string_view name, const std::vector<std::string>& inputs);
void SetOnnxInteger(onnx::NodeProto& node, std::string_view name, int64_t value);
// Metadata as the dynamo exporter writes it, of a node in the module `path`.
void SetOnnxScopes(onnx::NodeProto& node, std::string_view path);

enum class OnnxStyle : uint8_t {
  kTorchScript,        // matrices onnx::MatMul_<n> [in, out] and gains onnx::Mul_<n>, known by the names of their nodes
  kDynamo,             // matrices val_<n> [in, out], known by their nodes' metadata; the tied table is called lm_head.weight
  kDynamoUnoptimized,  // parameters under their names, each behind a Transpose
  kModelBuilder,       // ONNX Runtime's builder: model.layers.0.attn.q_proj.MatMul.weight [in, out]
  kQuantized,          // TorchScript's names after ONNX Runtime's quantizer: linear layers in MatMulNBits
};

// The text tensors of a Gemma 3n checkpoint, named model.<...>, as float32 or (bf16) as their upper halves.
onnx::ModelProto ExportOnnx(const Checkpoint& checkpoint, OnnxStyle style, bool bf16);

// Four or eight bits per code, as kQuantized stores a matrix.
struct QuantizedOnnx {
  onnx::TensorProto codes;        // u8 [rows, blocks, block_size * bits / 8]
  onnx::TensorProto scales;       // f32 [rows * blocks]
  onnx::TensorProto zero_points;  // u8 [rows * ceil(blocks * bits / 8)]
  std::vector<float> values;      // what they mean [rows * columns]
};
QuantizedOnnx QuantizeOnnx(const std::string& name, std::span<const float> values, int64_t rows, int64_t columns, int bits,
                           int64_t block_size);

// Moves the raw data of tensors of at least `smallest` bytes out of the model, aligned as exporters align it; returns the file's bytes.
std::string MoveOutside(onnx::ModelProto& model, const std::string& location, size_t smallest);

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_TESTING_RAW_ONNX_H_
