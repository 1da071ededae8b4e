#include "converter/model_family.h"

#include <algorithm>

#include "converter/gemma3.h"
#include "converter/gemma3n.h"
#include "converter/gguf_model.h"

namespace taskpress {

std::span<const ModelFamily> ModelFamilies() {
  static const std::array<ModelFamily, 2> kFamilies{{
      {.name = "gemma3n",
       .title = "Gemma 3n",
       .config_types = {"gemma3n", "gemma3n_text"},
       .parse_config = ParseGemma3nConfig,
       .add_gguf_fields = AddGemma3nFields,
       .weights = Gemma3nWeightTable(),
       .folds = Gemma3nFoldTable(),
       .decoder = Gemma3nDecoder,
       .has_per_layer_embedder = true},
      {.name = "gemma3",
       .title = "Gemma 3",
       .config_types = {"gemma3", "gemma3_text"},
       .parse_config = ParseGemma3Config,
       .add_gguf_fields = AddGemma3Fields,
       .weights = Gemma3WeightTable(),
       .folds = Gemma3FoldTable(),
       .decoder = Gemma3Decoder,
       .has_per_layer_embedder = false},
  }};
  return kFamilies;
}

const ModelFamily* FamilyOfConfigType(std::string_view model_type) {
  const auto found = std::ranges::find_if(ModelFamilies(), [&](const ModelFamily& family) {
    return std::ranges::find(family.config_types, model_type) != family.config_types.end();
  });
  return found == ModelFamilies().end() ? nullptr : &*found;
}

const ModelFamily* FamilyNamed(std::string_view name) {
  const auto found = std::ranges::find(ModelFamilies(), name, &ModelFamily::name);
  return found == ModelFamilies().end() ? nullptr : &*found;
}

}  // namespace taskpress
