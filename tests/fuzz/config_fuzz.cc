// A config that is accepted can be computed with: counts fit, shapes fit, every layer finds its cache.
#include <cstdint>
#include <span>

#include "converter/model_family.h"
#include "converter/text_config.h"
#include "converter/weight_table.h"
#include "schema/base/text.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace taskpress;
  const Result<Json> json = ParseJson(std::as_bytes(std::span(data, size)));
  if (!json) return 0;
  const Result<TextConfig> config = ParseTextConfig(*json);
  if (!config) {
    Require(config.error().code == ErrorCode::kConfigField || config.error().code == ErrorCode::kConfigUnsupported ||
            config.error().code == ErrorCode::kModelTypeUnsupported);
    Require(!config.error().message.empty() && IsUtf8(config.error().message));
    return 0;
  }
  const auto layers = static_cast<size_t>(config->num_hidden_layers);
  Require(config->intermediate_size.size() == layers && config->layer_types.size() == layers);
  const bool is_gemma3n = config->family == FamilyNamed("gemma3n");
  Require(config->activation_sparsity_pattern.size() == (is_gemma3n ? layers : 0));
  for (int64_t layer = 0; layer < config->num_hidden_layers; ++layer) {
    const int64_t source = config->kv_source_layer(layer);
    Require(source >= 0 && source < config->first_kv_shared_layer() && source <= layer);
  }
  for (const WeightRow& row : config->family->weights) {
    for (int64_t index = 0; index < WeightCount(row, *config); ++index)
      Require(NumBytes(DType::kF32, row.shape(*config, index)).has_value());
  }
  const ParameterCount count = CountParameters(*config);
  Require(count.effective > 0 && count.text > count.effective);
  for (const std::string& note : config->notes) Require(IsUtf8(note));
  return 0;
}
