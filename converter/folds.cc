#include "converter/folds.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "converter/model_family.h"
#include "schema/json.h"

// D1 to D4 are the rules of FORMATS.md, section Folds.
namespace taskpress {
namespace {

struct FoldPlace {
  const FoldRow* row = nullptr;
  int64_t index = 0;
};

FoldPlace FindFold(std::string_view name, const TextConfig& config) {
  for (const FoldRow& row : config.family->folds) {
    for (int64_t index = 0; index < FoldCount(row, config); ++index) {
      if (FoldName(row, index) == name) return {.row = &row, .index = index};
    }
  }
  return {};
}

void Multiply(std::vector<float>& factors, size_t size, size_t at, float factor) {
  if (factors.empty()) factors.assign(size, 1.0F);
  factors[at] *= factor;
}

// One weight's share of a fold.
void Apply(const FoldPart& part, std::span<const float> factors, const TextConfig& config, WeightScaling& scaling) {
  const size_t n = factors.size();
  switch (part.side) {
    case FoldSide::kUnused:
      return;
    case FoldSide::kGain:
      for (size_t j = 0; j < n; ++j) Multiply(scaling.columns, n, j, 1.0F / factors[j]);
      return;
    case FoldSide::kRows:
      for (size_t j = 0; j < n; ++j) Multiply(scaling.rows, n, j, 1.0F / factors[j]);
      return;
    case FoldSide::kTable: {
      const size_t width = n * static_cast<size_t>(config.num_hidden_layers);
      for (size_t i = 0; i < width; ++i) Multiply(scaling.columns, width, i, 1.0F / factors[i % n]);
      return;
    }
    case FoldSide::kColumns:
      for (size_t j = 0; j < n; ++j) Multiply(scaling.columns, n, j, factors[j]);
      return;
    case FoldSide::kQueryHeadColumns: {
      const auto width = static_cast<size_t>(config.num_attention_heads * config.head_dim);
      for (size_t i = 0; i < width; ++i) Multiply(scaling.columns, width, i, factors[ChannelOfQueryColumn(i, config)]);
      return;
    }
  }
}

std::unexpected<Error> Bad(std::string_view why) { return Fail(ErrorCode::kMetadataMalformed, "{}: {}", kFoldsEntry, why); }

}  // namespace

size_t ChannelOfQueryColumn(size_t column, const TextConfig& config) {
  const auto width = static_cast<size_t>(config.head_dim);
  const auto group = static_cast<size_t>(config.num_attention_heads / config.num_key_value_heads);
  return column / width / group * width + column % width;
}

std::string FoldName(const FoldRow& row, int64_t index) {
  return row.repeats == Repeats::kOnce ? std::string(row.name) : Format("{}.{}", row.name, index);
}

int64_t FoldCount(const FoldRow& row, const TextConfig& config) {
  if (row.applies != nullptr && !row.applies(config)) return 0;
  return row.repeats == Repeats::kOnce ? 1 : config.num_hidden_layers;
}

std::vector<std::string> NamesOf(const FoldRow& row, const FoldPart& part, int64_t index, const TextConfig& config) {
  if (part.side == FoldSide::kUnused) return {};
  if (row.repeats != Repeats::kOnce || !part.weight.contains("{}")) return {WithIndex(part.weight, index)};
  std::vector<std::string> names;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) names.push_back(WithIndex(part.weight, layer));
  return names;
}

int64_t FoldChannels(const FoldRow& row, int64_t index, const TextConfig& config) {
  const auto found = std::ranges::find(config.family->weights, row.parts.front().weight, &WeightRow::name);
  const Shape shape = found->shape(config, index);
  return shape[0];  // elements of a gain, rows of a matrix
}

Result<WeightScalings> ScalingsOf(std::span<const Fold> folds, const TextConfig& config) {
  WeightScalings scalings;
  std::set<std::string_view> seen;
  for (const Fold& fold : folds) {
    const FoldPlace place = FindFold(fold.name, config);
    if (place.row == nullptr) return Bad(Format("\"{}\" is no fold of this model (D3)", fold.name));
    if (!seen.insert(fold.name).second) return Bad(Format("\"{}\" stands there twice (D3)", fold.name));
    const int64_t channels = FoldChannels(*place.row, place.index, config);
    if (std::cmp_not_equal(fold.steps.size(), channels)) {
      return Bad(Format("\"{}\" has {} channels, the model {} (D4)", fold.name, fold.steps.size(), channels));
    }
    std::vector<float> factors;
    for (const int8_t step : fold.steps) factors.push_back(std::exp2(static_cast<float>(step) / kFoldStepsPerOctave));
    for (const FoldPart& part : place.row->parts) {
      for (const std::string& name : NamesOf(*place.row, part, place.index, config)) Apply(part, factors, config, scalings[name]);
    }
  }
  return scalings;
}

std::string EncodeFolds(std::span<const Fold> folds) {
  OrderedJson all = OrderedJson::object();
  for (const Fold& fold : folds) all[fold.name] = fold.steps;
  return all.dump();
}

Result<std::vector<Fold>> DecodeFolds(std::string_view text) {
  const Json all = TRY(ParseJson(AsBytes(text)));
  if (!all.is_object()) return Bad("not an object (D1)");
  std::vector<Fold> folds;
  for (const auto& [name, steps] : all.items()) {
    if (!steps.is_array()) return Bad(Format("\"{}\" is no list (D1)", name));
    Fold fold{.name = name, .steps = {}};
    for (const Json& step : steps) {
      const bool large = step.is_number_unsigned() && step.get<uint64_t>() > kMaxFoldStep;
      if (!step.is_number_integer() || large || (!step.is_number_unsigned() && step.get<int64_t>() < -kMaxFoldStep)) {
        return Bad(Format("\"{}\": {} is no integer from {} to {} (D2)", name, step.dump().substr(0, 40), -kMaxFoldStep, kMaxFoldStep));
      }
      fold.steps.push_back(static_cast<int8_t>(step.get<int64_t>()));
    }
    folds.push_back(std::move(fold));
  }
  return folds;
}

}  // namespace taskpress
