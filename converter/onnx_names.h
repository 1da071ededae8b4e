// Parameter paths ("model.layers.0.mlp.up_proj.weight") from what exporters write.
#ifndef TASKPRESS_CONVERTER_ONNX_NAMES_H_
#define TASKPRESS_CONVERTER_ONNX_NAMES_H_

#include <set>
#include <span>
#include <string>
#include <string_view>

#include "converter/onnx_model.h"

namespace taskpress {

// N10: the path of the module that a node belongs to, "model.layers.0.mlp.up_proj"; empty when the node does not say.
class OnnxModules {
 public:
  // Keeps views of the nodes' names.
  explicit OnnxModules(std::span<const OnnxNode> nodes);
  [[nodiscard]] std::string PathOf(const OnnxNode& node) const;

 private:
  std::set<std::string_view> called_;  // every module path that a slashed node name contains; parts of these names
};

// N11: true for a name that is a parameter's path and nothing that an exporter made up.
[[nodiscard]] bool IsParameterPath(std::string_view name);
// N11: the path as the Hugging Face checkpoint has it, without what exporters add and with what they lose.
[[nodiscard]] std::string CheckpointPath(std::string_view path);

// True when `path` is `whole` or lacks some of its parts: scopes that were not entered by a call.
[[nodiscard]] bool IsShortened(std::string_view path, std::string_view whole);

// N12: what stands before the text model's names in this file, and what should.
struct OnnxRoot {
  std::string wrapper;
  std::string replacement;
};
[[nodiscard]] OnnxRoot FindOnnxRoot(std::span<const std::string> names);
[[nodiscard]] std::string WithoutWrapper(const OnnxRoot& root, const std::string& name);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_ONNX_NAMES_H_
