// The families of models that are converted, one row each. What differs between two families is in the files a row points to: its config
// fields, its weight table, its model file. Blocks and runtime know no family.
#ifndef TASKPRESS_CONVERTER_MODEL_FAMILY_H_
#define TASKPRESS_CONVERTER_MODEL_FAMILY_H_

#include <array>
#include <span>
#include <string_view>

#include "converter/folds.h"
#include "converter/text_config.h"
#include "converter/text_model.h"
#include "converter/weight_table.h"
#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {

class GgufFields;

struct ModelFamily {
  std::string_view name;                         // in a bundle's metadata, and as general.architecture of a GGUF file
  std::string_view title;                        // for people
  std::array<std::string_view, 2> config_types;  // model_type of config.json: with a text_config, and of a text model alone
  Result<TextConfig> (*parse_config)(const Json& config);
  // Adds the family's own fields to the config.json that a GGUF file's metadata amounts to.
  Status (*add_gguf_fields)(const GgufFields& fields, Json& config);
  std::span<const WeightRow> weights;
  std::span<const FoldRow> folds;
  DecoderFigure decoder;
  bool has_per_layer_embedder;
};

std::span<const ModelFamily> ModelFamilies();
// Null when no family has it.
const ModelFamily* FamilyOfConfigType(std::string_view model_type);
const ModelFamily* FamilyNamed(std::string_view name);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_MODEL_FAMILY_H_
