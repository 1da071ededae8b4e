// Are the weights of a text model the same in two checkpoints? Bit for bit, whatever files they lie in.
//
//   compare_checkpoints MODEL.onnx FOLDER
//
// Prints one line per difference and a summary; exit status 1 when a weight of MODEL.onnx differs from FOLDER's or is missing there, or
// when FOLDER has a text weight that MODEL.onnx lacks and that is no key or value of a KV-shared layer (--shared-from N: first such layer).
#include <re2/re2.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "converter/checkpoint.h"
#include "converter/weight_table.h"
#include "schema/base/half.h"

namespace taskpress {
namespace {

// The name below the text model's prefix; empty for a tensor of another part.
std::string TextName(std::string_view name) {
  if (name == "lm_head.weight") return "embed_tokens.weight";  // tied
  for (const std::string_view other : {"vision_tower.", "audio_tower.", "embed_vision.", "embed_audio."}) {
    if (name.contains(other)) return "";
  }
  for (const std::string_view prefix : kTextPrefixes) {
    if (name.starts_with(prefix)) return std::string(name.substr(prefix.size()));
  }
  return "";
}

const CheckpointTensor* FindText(const Checkpoint& checkpoint, const std::string& name) {
  for (const std::string_view prefix : kTextPrefixes) {
    if (const CheckpointTensor* tensor = checkpoint.Find(std::string(prefix) + name)) return tensor;
  }
  return nullptr;
}

Result<std::vector<float>> ReadAll(const Checkpoint& checkpoint, const CheckpointTensor& tensor) {
  const RowBlock all{.first_row = 0, .num_rows = MatrixRows(tensor.shape), .first_column = 0, .num_columns = MatrixColumns(tensor.shape)};
  std::vector<float> values(static_cast<size_t>(all.num_rows * all.num_columns));
  TRY(checkpoint.ReadRows(tensor, all, values));
  return values;
}

struct Options {
  int shared_from = 10;  // of the micro checkpoint
  bool f16 = false;
  float close = 0;
};

Result<bool> Equal(const Checkpoint& a, const CheckpointTensor& in_a, const Checkpoint& b, const CheckpointTensor& in_b,
                   const Options& options) {
  if (in_a.shape != in_b.shape) return false;
  const std::vector<float> left = TRY(ReadAll(a, in_a));
  std::vector<float> right = TRY(ReadAll(b, in_b));
  if (options.f16) std::ranges::transform(right, right.begin(), [](float value) { return F16ToFloat(FloatToF16(value)); });
  if (options.close == 0) return std::memcmp(left.data(), right.data(), left.size() * sizeof(float)) == 0;
  const auto magnitude = [](float x, float y) { return std::abs(x) < std::abs(y); };
  const float bound = options.close * std::abs(*std::ranges::max_element(right, magnitude));
  return std::ranges::equal(left, right, [bound](float x, float y) { return std::abs(x - y) <= bound; });
}

bool IsUnread(const std::string& name, int shared_from) {
  int layer = 0;
  return RE2::FullMatch(name, R"(layers\.(\d+)\.self_attn\.(?:k_proj|v_proj|k_norm)\.weight)", &layer) && layer >= shared_from;
}

Result<int> Compare(const std::string& model, const std::string& folder, const Options& options) {
  const std::unique_ptr<Checkpoint> onnx = TRY(OpenOnnxCheckpoint(model));
  const std::unique_ptr<Checkpoint> reference = TRY(OpenSafetensorsCheckpoint(folder));
  int equal = 0;
  int others = 0;
  int wrong = 0;
  for (const CheckpointTensor& tensor : onnx->tensors()) {
    const std::string name = TextName(tensor.name);
    const CheckpointTensor* expected = name.empty() ? reference->Find(tensor.name) : FindText(*reference, name);
    const bool same = expected != nullptr && TRY(Equal(*onnx, tensor, *reference, *expected, options));
    if (!same) {
      std::printf("%s %s: %s\n", tensor.name.c_str(), ToString(tensor.shape).c_str(),
                  expected == nullptr ? "not in the folder" : "differs");
      ++wrong;
    } else {
      ++(name.empty() ? others : equal);
    }
  }
  for (const CheckpointTensor& tensor : reference->tensors()) {
    const std::string name = TextName(tensor.name);
    if (name.empty() || FindText(*onnx, name) != nullptr || IsUnread(name, options.shared_from)) continue;
    std::printf("%s: missing in the model\n", tensor.name.c_str());
    ++wrong;
  }
  std::printf("%d text weights and %d others are equal, %d are not\n", equal, others, wrong);
  return wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace taskpress

int main(int argc, char** argv) {
  CLI::App app("Are the weights of a text model the same in two checkpoints?");
  std::string model;
  std::string folder;
  taskpress::Options options;
  app.add_option("MODEL", model)->required();
  app.add_option("FOLDER", folder)->required();
  app.add_option("--shared-from", options.shared_from);
  app.add_flag("--f16", options.f16);
  app.add_option("--close", options.close);
  CLI11_PARSE(app, argc, argv);
  const taskpress::Result<int> status = taskpress::Compare(model, folder, options);
  if (status) return *status;
  std::fprintf(stderr, "%s: %s\n", taskpress::CodeName(status.error().code).c_str(), status.error().message.c_str());
  return 2;
}
