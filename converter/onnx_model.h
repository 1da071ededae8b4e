// An ONNX file: the tensors it stores and the nodes that read them. Knows the format, no model; converter/onnx_weights.h says which tensor
// is which weight.
#ifndef TASKPRESS_CONVERTER_ONNX_MODEL_H_
#define TASKPRESS_CONVERTER_ONNX_MODEL_H_

#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/base/mapped_file.h"
#include "schema/dtype.h"
#include "schema/shape.h"

namespace taskpress {

// An initializer, or the value of a Constant node, which is the same thing to its readers.
struct OnnxTensor {
  std::string name;                  // of the value that nodes read
  std::optional<DType> type;         // nothing for a type that no weight is read from
  std::string type_name;             // "FLOAT8E4M3FN", for messages
  Shape shape;                       // at most 8 dimensions, whose product fits 63 bits
  ByteView bytes;                    // row-major, exactly what type and shape need; empty without a type. Owned by the model
  const MappedFile* file = nullptr;  // the mapped file that holds the bytes; null when the model itself does
};

struct OnnxNode {
  std::string op;           // "MatMul", "com.microsoft.MatMulNBits"; empty for a node of a subgraph, which only counts as a reader
  std::string name;         // "/model/layers.0/mlp/up_proj/MatMul" from torch's TorchScript exporter
  std::string name_scopes;  // "['', 'model', 'model.norm', 'mul_4']" from its dynamo exporter, else empty
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::map<std::string, int64_t> integers;  // attributes of type INT
  std::vector<int64_t> permutation;         // the attribute "perm"
};

class OnnxModel {
 public:
  // Rules N1 to N9 of FORMATS.md, ONNX model: kOnnxModel, kOnnxUnsupported, or kUnsafePath for data outside the model's folder. External
  // data stays in its file, which is mapped; inline data is kept once.
  static Result<OnnxModel> Open(const std::filesystem::path& file);
  // The same on bytes in memory, which are not needed afterwards; external data is looked for below `folder`.
  static Result<OnnxModel> Parse(ByteView bytes, const std::filesystem::path& folder);

  [[nodiscard]] std::span<const OnnxTensor> tensors() const { return tensors_; }  // in the file's order
  [[nodiscard]] std::span<const OnnxNode> nodes() const { return nodes_; }
  // Tensors of more than one element inside subgraphs, functions and sparse constants, as lines for a message; they are not read.
  [[nodiscard]] std::span<const std::string> unreachable() const { return unreachable_; }

  // The files of external data, in the order of their names.
  [[nodiscard]] std::vector<std::filesystem::path> external_files() const;

  // Gives the nodes' memory back, once it is known what reads which tensor.
  void ForgetNodes() { nodes_ = {}; }

 private:
  friend class OnnxModelBuilder;
  OnnxModel() = default;

  std::vector<OnnxTensor> tensors_;
  std::vector<OnnxNode> nodes_;
  std::vector<std::string> unreachable_;
  std::deque<std::string> inline_bytes_;                                     // never moves its strings
  std::map<std::string, std::shared_ptr<const MappedFile>> external_files_;  // by location
};

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_ONNX_MODEL_H_
