// Fields of config.json that the families share, as their parsers read them.
#ifndef TASKPRESS_CONVERTER_CONFIG_FIELDS_H_
#define TASKPRESS_CONVERTER_CONFIG_FIELDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "converter/config_reader.h"
#include "converter/text_config.h"
#include "schema/base/error.h"

namespace taskpress {

// Sanity bounds: far above any published model, far below anything that could overflow.
inline constexpr int64_t kMaxLayers = 256;
inline constexpr int64_t kMaxVocab = 1 << 20;
inline constexpr int64_t kMaxDim = 1 << 17;
inline constexpr double kMaxRopeBase = 1e12;

// What a family's files may leave out, as transformers fills it in; 0: the field is required.
struct ConfigDefaults {
  int64_t vocab_size = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  double rms_norm_eps = 0;
  int64_t max_position_embeddings = 0;
  double rope_theta = 0;
  double rope_local_base_freq = 0;
};

// vocab_size, hidden_size, heads, head_dim, rms_norm_eps, max_position_embeddings, sliding_window.
void ReadSizes(ConfigReader& reader, const ConfigDefaults& defaults, TextConfig& config);
// rope_theta, rope_local_base_freq and rope_scaling, or rope_parameters, in which newer files say the same; files may have both if they
// agree. Scaling is none, or linear on full attention.
void ReadRope(ConfigReader& reader, const ConfigDefaults& defaults, TextConfig& config);
// layer_types; without them every `pattern`-th layer sees everything.
std::vector<LayerType> ReadLayerTypes(ConfigReader& reader, int64_t layers, int64_t pattern);
// What no family has, and what has no influence on the converted model.
void CheckFixedFields(ConfigReader& reader, std::string_view model_type);

// Where a config.json keeps its text model: the file itself when its model_type is `text_type`, else its text_config.
struct TextPart {
  ConfigReader outer;
  ConfigReader text;
};
Result<TextPart> FindTextPart(const Json& config, std::string_view text_type);
// Every problem that the readers found, in one error; else the notes about fields nobody knows.
Status FinishConfig(TextPart& part, TextConfig& config);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CONFIG_FIELDS_H_
