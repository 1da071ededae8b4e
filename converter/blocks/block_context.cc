#include "converter/blocks/block_context.h"

namespace taskpress {

Value BlockContext::Take(Result<Weight> weight) {
  if (weight) return b.Constant(*weight);
  b.Report(std::move(weight).error());
  return {};
}

std::vector<int64_t> BlockContext::FfnCuts(int64_t layer) const {
  const int64_t width = config.intermediate_size[static_cast<size_t>(layer)];
  std::vector<int64_t> cuts{width};
  if (place_ == nullptr) return cuts;
  cuts = place_->ffn_cuts[static_cast<size_t>(StoredLayer(layer))];
  std::erase_if(cuts, [width](int64_t cut) { return cut > width; });
  return cuts;
}

std::vector<float> BlockContext::Floats(const std::string& name) {
  Result<std::vector<float>> values = weights_->Floats(name);
  if (values) return *std::move(values);
  b.Report(std::move(values).error());
  return {};
}

Value BlockContext::Vector(const std::string& name, float factor) {
  std::vector<float> values = Floats(name);
  for (float& value : values) value *= factor;
  return Folded(name, values, {static_cast<int64_t>(values.size())});
}

Value BlockContext::Folded(const std::string& name, std::span<const float> values, Shape shape) {
  return b.Constant({.name = name, .type = DType::kF32, .shape = std::move(shape), .bytes = MakeMemorySource(values)});
}

}  // namespace taskpress
