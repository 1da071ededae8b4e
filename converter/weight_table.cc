#include "converter/weight_table.h"

#include <algorithm>

#include "converter/model_family.h"

namespace taskpress {

std::string WithIndex(std::string_view name, int64_t index) {
  const size_t place = name.find("{}");
  if (place == std::string_view::npos) return std::string(name);
  return Format("{}{}{}", name.substr(0, place), index, name.substr(place + 2));
}

std::string WeightName(const WeightRow& row, int64_t index) { return WithIndex(row.name, index); }

std::string GgufName(const WeightRow& row, int64_t index) { return WithIndex(row.gguf_name, index); }

bool IsStackedInGguf(const WeightRow& row) { return row.repeats != Repeats::kOnce && !row.gguf_name.contains("{}"); }

int64_t WeightCount(const WeightRow& row, const TextConfig& config) {
  switch (row.repeats) {
    case Repeats::kOnce:
      return 1;
    case Repeats::kPerLayer:
      return config.num_hidden_layers;
    case Repeats::kPerAltupProjection:
      return config.altup_num_inputs - 1;
  }
  return 0;
}

bool IsUnused(const WeightRow& row, const TextConfig& config, int64_t index) {
  return row.unused_when_kv_shared && index >= config.first_kv_shared_layer();
}

bool TextModelReads(const TextConfig& config, std::string_view checkpoint_name) {
  return std::ranges::any_of(kTextPrefixes, [&](std::string_view prefix) {
    if (!checkpoint_name.starts_with(prefix)) return false;
    const std::string_view name = checkpoint_name.substr(prefix.size());
    for (const WeightRow& row : config.family->weights) {
      for (int64_t index = 0; index < WeightCount(row, config); ++index) {
        if (!IsUnused(row, config, index) && WeightName(row, index) == name) return true;
      }
    }
    return false;
  });
}

ParameterCount CountParameters(const TextConfig& config) {
  ParameterCount count;
  for (const WeightRow& row : config.family->weights) {
    for (int64_t index = 0; index < WeightCount(row, config); ++index) {
      const int64_t elements = NumElements(row.shape(config, index)).value_or(0);
      count.text += elements;
      const bool table = row.quant_class == QuantClass::kEmbedding || row.quant_class == QuantClass::kPerLayerEmbedding;
      if (!table) count.effective += elements;
    }
  }
  return count;
}

}  // namespace taskpress
