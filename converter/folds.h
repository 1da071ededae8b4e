// Rescalings of channels that leave the function of the float model as it was: what comes before a channel is divided by s, what reads the
// channel is multiplied by it. They move range from where it costs accuracy to where it is free: a norm's gain is a float, and a row of a
// quantized matrix has a scale of its own, but all columns of a row share one.
#ifndef TASKPRESS_CONVERTER_FOLDS_H_
#define TASKPRESS_CONVERTER_FOLDS_H_

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "converter/text_config.h"
#include "converter/weight_table.h"
#include "schema/base/error.h"

namespace taskpress {

// What a fold does to a weight, for channel j with factor s[j].
enum class FoldSide : uint8_t {
  kUnused,
  kGain,              // element j of a vector / s[j]
  kRows,              // row j of a matrix / s[j]
  kTable,             // column j of every layer's part of the per-layer table / s[j]
  kColumns,           // column j of a matrix * s[j]
  kQueryHeadColumns,  // channel j is of a key-value head: its column in every query head that reads that head * s[j]
};

struct FoldPart {
  std::string_view weight;  // of the weight table or "lm_head.weight"; "{}" in a fold that occurs once: of every layer
  FoldSide side = FoldSide::kUnused;
};

// How strong a channel is, told from weights alone.
enum class ChannelStrength : uint8_t {
  kGain,      // normed values times a gain: the gain
  kGated,     // gelu(gate) * up
  kValue,     // rows of v_proj times the normed input
  kPerLayer,  // gelu(per_layer_input_gate) * (projection norm + table)
};

struct FoldRow {
  std::string_view name;
  Repeats repeats = Repeats::kPerLayer;
  ChannelStrength strength = ChannelStrength::kGain;
  std::string_view gain;                         // of the norm before the channel's matrices, or the gain itself
  std::array<FoldPart, 4> parts;                 // producers, then consumers
  bool (*applies)(const TextConfig&) = nullptr;  // null: always
};

// s[j] = 2^(steps[j] / kFoldStepsPerOctave). A grid, so that a bundle can say exactly what was done to it in a byte per channel.
inline constexpr int kFoldStepsPerOctave = 8;
inline constexpr int kMaxFoldStep = 127;
struct Fold {
  std::string name;  // "up_to_down.3"; a row that occurs once has no number
  std::vector<int8_t> steps;
};

// Factors of a matrix [rows, columns]; of a vector, `columns`. Empty: ones.
struct WeightScaling {
  std::vector<float> rows;
  std::vector<float> columns;
};
using WeightScalings = std::map<std::string, WeightScaling>;  // by name in the weight table, and "lm_head.weight"

// Which channel of the key-value heads a column of o_proj reads: a key-value head serves as many query heads as lie in its group.
size_t ChannelOfQueryColumn(size_t column, const TextConfig& config);

std::string FoldName(const FoldRow& row, int64_t index);
int64_t FoldCount(const FoldRow& row, const TextConfig& config);
// Weights behind a part: one, or one per layer.
std::vector<std::string> NamesOf(const FoldRow& row, const FoldPart& part, int64_t index, const TextConfig& config);
// Channels of the row's first part.
int64_t FoldChannels(const FoldRow& row, int64_t index, const TextConfig& config);

// What the folds amount to for each weight. kMetadataMalformed for an unknown name, a name twice and a wrong number of steps: rules D3, D4.
Result<WeightScalings> ScalingsOf(std::span<const Fold> folds, const TextConfig& config);

// The text of a bundle's metadata entry kFoldsEntry: FORMATS, rules D. kMetadataMalformed.
inline constexpr std::string_view kFoldsEntry = "taskpress.folds";
std::string EncodeFolds(std::span<const Fold> folds);
Result<std::vector<Fold>> DecodeFolds(std::string_view text);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_FOLDS_H_
