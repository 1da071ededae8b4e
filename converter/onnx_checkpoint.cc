#include <algorithm>
#include <utility>

#include "converter/checkpoint.h"
#include "converter/onnx_model.h"
#include "converter/onnx_weights.h"
#include "converter/tensor_rows.h"

namespace taskpress {
namespace {

class OnnxCheckpoint final : public Checkpoint {
 public:
  // `weights` point into `model`, whose tensors do not move with it.
  OnnxCheckpoint(std::string description, OnnxModel model, std::vector<OnnxWeight> weights)
      : description_(std::move(description)), model_(std::move(model)), weights_(std::move(weights)) {
    tensors_.reserve(weights_.size());
    for (const OnnxWeight& weight : weights_) tensors_.push_back({.name = weight.name, .type = weight.type, .shape = weight.shape});
  }

  [[nodiscard]] std::span<const CheckpointTensor> tensors() const override { return tensors_; }
  [[nodiscard]] std::string description() const override { return description_; }
  [[nodiscard]] std::vector<std::filesystem::path> files() const override {
    std::vector<std::filesystem::path> all = model_.external_files();
    all.emplace(all.begin(), description_);
    return all;
  }

  Status ReadRows(const CheckpointTensor& tensor, RowBlock block, std::span<float> out) const override {
    const size_t index = TRY(IndexOf(tensor));
    const OnnxWeight& weight = weights_[index];
    TRY(CheckBlock(weight.name, weight.shape, block, out.size()));
    ReadOnnxWeight(weight, block, out);
    if (weight.stored != nullptr) return CheckUnchanged(weight.stored);
    TRY(CheckUnchanged(weight.blocks->codes));
    TRY(CheckUnchanged(weight.blocks->scales));
    return CheckUnchanged(weight.blocks->zero_points);
  }

 private:
  // After reading: until then the file could have been cut.
  static Status CheckUnchanged(const OnnxTensor* stored) {
    return stored == nullptr || stored->file == nullptr ? Status() : stored->file->CheckUnchanged();
  }

  std::string description_;
  OnnxModel model_;
  std::vector<OnnxWeight> weights_;  // [tensors]
  std::vector<CheckpointTensor> tensors_;
};

}  // namespace

Result<std::unique_ptr<Checkpoint>> OpenOnnxCheckpoint(const std::filesystem::path& file) {
  OnnxModel model = TRY(OnnxModel::Open(file));
  Result<std::vector<OnnxWeight>> weights = MapOnnxWeights(model);
  if (!weights) return std::unexpected(WithContext(std::move(weights).error(), file.string()));
  model.ForgetNodes();
  return std::make_unique<OnnxCheckpoint>(file.string(), std::move(model), *std::move(weights));
}

}  // namespace taskpress
