#include "converter/text_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "converter/model_family.h"
#include "quantizer/gptq_source.h"
#include "schema/base/text.h"

namespace taskpress {
namespace {

constexpr auto kOtherModalities = std::to_array<std::string_view>(
    {"model.vision_tower.", "model.audio_tower.", "model.embed_vision.", "model.embed_audio.", "model.multi_modal_projector.",
     "vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.", "multi_modal_projector."});
constexpr auto kHeadNames = std::to_array<std::string_view>({"lm_head.weight", "model.lm_head.weight", "language_model.lm_head.weight"});

constexpr std::string_view kEmbedding = "embed_tokens.weight";
constexpr std::string_view kPerLayerEmbedding = "embed_tokens_per_layer.weight";
constexpr std::string_view kHead = "lm_head.weight";

std::string PieceName(const std::string& name, int64_t begin, int64_t end) { return Format("{}[:,{}:{}]", name, begin, end); }

Result<std::string_view> FindTextPrefix(const Checkpoint& checkpoint, std::string_view family) {
  for (const std::string_view prefix : kTextPrefixes) {
    if (checkpoint.Find(std::string(prefix) + std::string(kEmbedding)) != nullptr) return prefix;
  }
  return Fail(ErrorCode::kWeightsMismatch, "{}: no tensor \"{}{}\"; this is not a {} checkpoint", checkpoint.description(),
              kTextPrefixes[0], kEmbedding, family);
}

bool BelongsToOtherModality(std::string_view name) {
  return std::ranges::any_of(kOtherModalities, [&](std::string_view prefix) { return name.starts_with(prefix); });
}

std::string ListOf(std::string_view title, const std::vector<std::string>& lines) {
  if (lines.empty()) return "";
  return Format("\n  {} ({}):{}", title, lines.size(), ListLines(lines));
}

Status CheckTiedHead(const Checkpoint& checkpoint, const CheckpointTensor& head, const CheckpointTensor& table) {
  const int64_t columns = MatrixColumns(table.shape);
  bool equal = head.shape == table.shape;
  const int64_t step = std::max<int64_t>(1, (1 << 20) / std::max<int64_t>(columns, 1));
  std::vector<float> a(static_cast<size_t>(step * columns));
  std::vector<float> b(a.size());
  for (int64_t row = 0; equal && row < table.shape[0]; row += step) {
    const RowBlock block{.first_row = row, .num_rows = std::min(step, table.shape[0] - row), .first_column = 0, .num_columns = columns};
    const auto count = static_cast<size_t>(block.num_rows * columns);
    TRY(checkpoint.ReadRows(head, block, std::span(a).first(count)));
    TRY(checkpoint.ReadRows(table, block, std::span(b).first(count)));
    equal = std::equal(a.begin(), a.begin() + static_cast<ptrdiff_t>(count), b.begin());
  }
  if (equal) return {};
  return Fail(ErrorCode::kTiedHeadDiffers, "\"{}\" {} differs from \"{}\" {}, although the config ties them", head.name,
              ToString(head.shape), table.name, ToString(table.shape));
}

void Transform(WeightTransform transform, const TextConfig& config, std::span<float> values) {
  switch (transform) {
    case WeightTransform::kAsIs:
      return;
    case WeightTransform::kClipAltup: {
      if (config.altup_coef_clip == 0) return;
      const auto clip = static_cast<float>(config.altup_coef_clip);
      for (float& value : values) value = std::clamp(value, -clip, clip);
      return;
    }
    case WeightTransform::kPlusOne:
      for (float& value : values) value += 1.0F;
      return;
    case WeightTransform::kQueryGain: {
      const auto scale = static_cast<float>(1.0 / std::sqrt(config.query_pre_attn_scalar));
      for (float& value : values) value = (1.0F + value) * scale;
      return;
    }
  }
}

// Rows from `first_row` on, columns from `first_column` on.
void Scale(const WeightScaling& scaling, int64_t first_row, int64_t columns, int64_t first_column, std::span<float> values) {
  const auto width = static_cast<size_t>(columns);
  for (size_t row = 0; row * width < values.size(); ++row) {
    const std::span<float> part = values.subspan(row * width, width);
    if (!scaling.rows.empty()) {
      const float factor = scaling.rows[static_cast<size_t>(first_row) + row];
      for (float& value : part) value *= factor;
    }
    if (scaling.columns.empty()) continue;
    const float* factors = scaling.columns.data() + first_column;
    for (size_t c = 0; c < width; ++c) part[c] *= factors[c];
  }
}

}  // namespace

uint64_t StoredBytes(const BundleWeight& weight) {
  uint64_t scales = 0;
  if (weight.block_scales != nullptr) {
    scales = weight.block_scales->size();
  } else if (weight.spec.is_quantized()) {
    scales = static_cast<uint64_t>(weight.num_rows) * sizeof(float);
  }
  return weight.rows->size() + scales;
}

Result<TextWeights> TextWeights::Bind(std::shared_ptr<const Checkpoint> checkpoint, const TextConfig& config) {
  const std::string_view prefix = TRY(FindTextPrefix(*checkpoint, config.family->title));
  TextWeights weights;
  weights.config_ = config;
  std::vector<std::string> missing;
  std::vector<std::string> misshapen;
  std::set<std::string_view> accounted;
  for (const WeightRow& row : config.family->weights) {
    for (int64_t index = 0; index < WeightCount(row, config); ++index) {
      const std::string name = WeightName(row, index);
      const CheckpointTensor* tensor = checkpoint->Find(std::string(prefix) + name);
      const bool unused = IsUnused(row, config, index);
      if (tensor == nullptr) {
        if (!unused) missing.push_back(Format("{}{} {}", prefix, name, ToString(row.shape(config, index))));
        continue;
      }
      accounted.insert(tensor->name);
      if (tensor->shape != row.shape(config, index)) {
        misshapen.push_back(Format("{}: {}, expected {}", tensor->name, ToString(tensor->shape), ToString(row.shape(config, index))));
      }
      if (!unused) weights.bound_[name] = {.tensor = tensor, .row = &row, .index = index};
    }
  }
  std::vector<std::string> unknown;
  int64_t not_asked_for = 0;
  const CheckpointTensor* head = nullptr;
  for (const CheckpointTensor& tensor : checkpoint->tensors()) {
    if (accounted.contains(tensor.name)) continue;
    if (BelongsToOtherModality(tensor.name)) {
      ++not_asked_for;
    } else if (std::ranges::find(kHeadNames, tensor.name) != kHeadNames.end()) {
      head = &tensor;
    } else {
      unknown.push_back(Format("{} {}", tensor.name, ToString(tensor.shape)));
    }
  }
  if (!missing.empty() || !misshapen.empty() || !unknown.empty()) {
    return Fail(ErrorCode::kWeightsMismatch, "{}: the weights do not fit config.json{}{}{}", checkpoint->description(),
                ListOf("missing", missing), ListOf("wrong shape", misshapen), ListOf("unknown", unknown));
  }
  if (head != nullptr) TRY(CheckTiedHead(*checkpoint, *head, *weights.bound_[std::string(kEmbedding)].tensor));
  if (not_asked_for > 0) weights.notes_.push_back(Format("{} vision and audio tensors not asked for (--modalities text)", not_asked_for));
  weights.checkpoint_ = std::move(checkpoint);
  return weights;
}

const TextWeights::Bound* TextWeights::Find(const std::string& name) const {
  const auto found = bound_.find(name);
  return found == bound_.end() ? nullptr : &found->second;
}

Status TextWeights::ApplyRecipe(const Recipe& recipe) {
  std::vector<WeightToQuantize> all;
  for (const auto& [name, bound] : bound_) {
    all.push_back({.name = name, .quant_class = bound.row->quant_class, .columns = MatrixColumns(bound.tensor->shape)});
  }
  all.push_back({.name = std::string(kHead), .quant_class = QuantClass::kHead, .columns = config_.hidden_size});
  std::vector<ResolvedWeight> resolved = TRY(recipe.Resolve(all));
  for (size_t i = 0; i < all.size(); ++i) {
    const bool known = calibration_ != nullptr && calibration_->Has(all[i].name);
    if (resolved[i].spec.method == QuantMethod::kGptq && !known) resolved[i].spec.method = QuantMethod::kClip;
  }
  for (size_t i = 0; i < all.size(); ++i) specs_[all[i].name] = {all[i].quant_class, resolved[i].spec};
  resolved_recipe_ = ResolvedRecipeText(all, resolved);
  if (!recipe.note.empty()) notes_.push_back(recipe.note);
  const auto blocks = std::ranges::count_if(resolved, [](const ResolvedWeight& weight) { return weight.spec.block_size > 0; });
  const auto yielded = std::ranges::count_if(resolved, [](const ResolvedWeight& weight) { return !weight.note.empty(); });
  if (blocks > 0 || yielded > 0) {
    notes_.push_back(
        Format("{} matrices have scales of blocks, which clients read since LiteRT of 2025-04; {} weights have scales of rows instead",
               blocks, yielded));
  }
  return {};
}

Result<std::vector<float>> TextWeights::Floats(const std::string& name) const {
  const Bound* bound = Find(name);
  if (bound == nullptr) return Fail(ErrorCode::kWeightsMismatch, "weight \"{}\" is not in the table", name);
  const Shape& shape = bound->tensor->shape;
  const RowBlock block{.first_row = 0, .num_rows = MatrixRows(shape), .first_column = 0, .num_columns = MatrixColumns(shape)};
  std::vector<float> values(static_cast<size_t>(block.num_rows * block.num_columns));
  TRY(checkpoint_->ReadRows(*bound->tensor, block, values));
  for (const float value : values) {
    if (!std::isfinite(value)) return Fail(ErrorCode::kWeightValue, "\"{}\" holds {}", bound->tensor->name, value);
  }
  Transform(bound->row->transform, config_, values);
  if (const auto scaling = scalings_.find(name); scaling != scalings_.end()) {
    Scale(*scaling->second, 0, MatrixColumns(shape), 0, values);
  }
  return values;
}

FloatRowReader TextWeights::Reader(const Bound& bound, const std::string& scaling_name, int64_t first_column, int64_t columns) const {
  const auto found = scalings_.find(scaling_name);
  const std::shared_ptr<const WeightScaling> scaling = found == scalings_.end() ? nullptr : found->second;
  return [checkpoint = checkpoint_, tensor = bound.tensor, scaling, first_column, columns](int64_t first_row, int64_t count,
                                                                                           std::span<float> values) -> Status {
    const RowBlock block{.first_row = first_row, .num_rows = count, .first_column = first_column, .num_columns = columns};
    TRY(checkpoint->ReadRows(*tensor, block, values));
    if (scaling != nullptr) Scale(*scaling, first_row, columns, first_column, values);
    return {};
  };
}

Result<WeightFloats> TextWeights::FloatsOf(const std::string& name) const {
  const bool head = name == kHead;
  const Bound* bound = Find(head ? std::string(kEmbedding) : name);
  if (bound == nullptr) return Fail(ErrorCode::kWeightsMismatch, "weight \"{}\" is not in the table", name);
  const Shape& shape = bound->tensor->shape;
  const int64_t columns = MatrixColumns(shape);
  return WeightFloats{
      .num_rows = head ? config_.text_vocab_size : MatrixRows(shape), .columns = columns, .read = Reader(*bound, name, 0, columns)};
}

QuantSpec TextWeights::SpecOf(const std::string& name) const {
  const auto found = specs_.find(name);
  return found == specs_.end() ? QuantSpec{.type = DType::kF32} : found->second.second;
}

Status TextWeights::SetFolds(std::vector<Fold> folds) {
  for (auto& [name, scaling] : TRY(ScalingsOf(folds, config_))) {
    scalings_[name] = std::make_shared<const WeightScaling>(std::move(scaling));
  }
  folds_ = std::move(folds);
  return {};
}

std::vector<float> TextWeights::ColumnFactors(const std::string& name, int64_t first, int64_t end) const {
  const auto scaling = scalings_.find(name);
  if (scaling == scalings_.end() || scaling->second->columns.empty()) return {};
  const std::vector<float>& all = scaling->second->columns;
  return {all.begin() + first, all.begin() + end};
}

CalibratedInputs TextWeights::InputsOf(const Part& part) const {
  if (calibration_ == nullptr || !calibration_->Has(part.spec_name)) return {};
  return {.weight = part.spec_name,
          .first_column = part.first_column,
          .columns = part.columns,
          .factors = ColumnFactors(part.spec_name, part.first_column, part.first_column + part.columns)};
}

Status TextWeights::Calibrate(const Part& part, QuantizedRowsInput& rows) const {
  const QuantSpec spec = rows.spec;
  CalibratedInputs inputs = InputsOf(part);
  if (inputs.weight.empty() || !spec.is_quantized() || spec.method == QuantMethod::kAbsmax) return {};
  std::shared_ptr<const Calibration> calibration = calibration_;
  const auto own = piece_calibrations_.find({part.spec_name, part.first_column + part.columns});
  if (own != piece_calibrations_.end()) {
    calibration = own->second.calibration;
    inputs.weight = own->second.weight;
  }
  if (spec.method == QuantMethod::kClip) {
    rows.column_importance = TRY(calibration->Importance(inputs, spec));
    return {};
  }
  inputs.nested = !part.before.empty();
  if (inputs.nested) inputs.factors = ColumnFactors(part.spec_name, 0, part.first_column + part.columns);
  TRY(calibration->Check(inputs));
  rows.quantizer = [calibration, inputs = std::move(inputs), spec, before = part.before](std::span<const float> values, int64_t num_rows,
                                                                                         ByteSpan packed, std::span<float> scales,
                                                                                         int64_t first_row) -> Status {
    const std::shared_ptr<const GptqInput> input = TRY(calibration->GptqInputOf(inputs, spec));
    if (!input->cross) return GptqRows(input->factor, spec, input->importance, values, num_rows, packed, scales, first_row);
    const std::vector<float> errors = TRY(RoundingErrors(before, first_row, num_rows));
    return NestedGptqRows(input->factor, *input->cross, spec, input->importance, values, num_rows, errors, packed, scales, first_row);
  };
  return {};
}

Result<Weight> TextWeights::Make(const Part& part) {
  const Bound* bound = Find(part.source);
  if (bound == nullptr) return Fail(ErrorCode::kWeightsMismatch, "weight \"{}\" is not in the table", part.source);
  const auto found = specs_.find(part.spec_name);
  if (found == specs_.end())
    return Fail(ErrorCode::kRecipeUnmatched, "weight \"{}\" has no storage type yet: no recipe was applied", part.name);
  const auto [quant_class, spec] = found->second;
  const auto known = std::ranges::find(handed_out_, part.name, &BundleWeight::name);
  std::shared_ptr<const QuantizedRows> rows;
  std::shared_ptr<const RowSource> block_scales;
  if (known != handed_out_.end()) {
    rows = known->rows;
    block_scales = known->block_scales;
  } else {
    QuantizedRowsInput input{.name = part.name,
                             .spec = spec,
                             .num_rows = part.num_rows,
                             .columns = part.columns,
                             .reader = Reader(*bound, part.spec_name, part.first_column, part.columns),
                             .origin = checkpoint_->Origin(*bound->tensor),
                             .will_read = [checkpoint = checkpoint_, tensor = bound->tensor](
                                              int64_t first_row, int64_t count) { checkpoint->WillRead(*tensor, first_row, count); },
                             .scale_factor = part.scale_factor};
    TRY(Calibrate(part, input));
    rows = TRY(QuantizedRows::Make(std::move(input)));
    if (spec.block_size > 0) block_scales = MakeBlockScales(rows);
    handed_out_.push_back({.name = part.name,
                           .quant_class = quant_class,
                           .spec = spec,
                           .source_type = bound->tensor->type,
                           .source_position = checkpoint_->Position(*bound->tensor),
                           .num_rows = part.num_rows,
                           .columns = part.columns,
                           .rows = rows,
                           .block_scales = block_scales,
                           .recipe_name = part.spec_name,
                           .inputs = InputsOf(part)});
  }
  return Weight{.name = part.name,
                .type = spec.type,
                .shape = {part.num_rows, part.columns},
                .bytes = rows,
                .block_scales = block_scales,
                .two_terms = spec.two_terms};
}

Result<Weight> TextWeights::Matrix(const std::string& name) {
  const Bound* bound = Find(name);
  if (bound == nullptr) return Fail(ErrorCode::kWeightsMismatch, "weight \"{}\" is not in the table", name);
  const Shape& shape = bound->tensor->shape;
  return Make({.name = name,
               .source = name,
               .spec_name = name,
               .num_rows = MatrixRows(shape),
               .first_column = 0,
               .columns = MatrixColumns(shape),
               .scale_factor = 1.0F});
}

Result<Weight> TextWeights::FirstRows(const std::string& name, int64_t num_rows) {
  Weight weight = TRY(Matrix(name));
  if (num_rows == weight.shape[0]) return weight;
  const auto whole = std::ranges::find(handed_out_, name, &BundleWeight::name);
  weight.bytes = TRY(MakeFirstRows(whole->rows, num_rows));
  if (whole->block_scales != nullptr) weight.block_scales = TRY(MakeFirstRows(whole->block_scales, num_rows));
  weight.shape[0] = num_rows;
  return weight;
}

Result<Weight> TextWeights::Columns(const std::string& name, int64_t begin, int64_t end) {
  const Bound* bound = Find(name);
  if (bound == nullptr) return Fail(ErrorCode::kWeightsMismatch, "weight \"{}\" is not in the table", name);
  const Shape& shape = bound->tensor->shape;
  if (begin == 0 && end == MatrixColumns(shape)) return Matrix(name);
  std::vector<std::shared_ptr<const QuantizedRows>> before;
  int64_t at = 0;
  for (const BundleWeight& weight : handed_out_) {
    if (at == begin) break;
    if (weight.name != PieceName(name, at, at + weight.columns)) continue;
    before.push_back(weight.rows);
    at += weight.columns;
  }
  if (at != begin) {
    return Fail(ErrorCode::kWeightsMismatch, "columns [{}, {}) of \"{}\" are asked for before those in front of them", begin, end, name);
  }
  return Make({.name = PieceName(name, begin, end),
               .source = name,
               .spec_name = name,
               .num_rows = MatrixRows(shape),
               .first_column = begin,
               .columns = end - begin,
               .scale_factor = 1.0F,
               .before = std::move(before)});
}

Result<Weight> TextWeights::Head() {
  return Make({.name = std::string(kHead),
               .source = std::string(kEmbedding),
               .spec_name = std::string(kHead),
               .num_rows = config_.text_vocab_size,
               .first_column = 0,
               .columns = config_.hidden_size,
               .scale_factor = 1.0F});
}

Result<Weight> TextWeights::EmbeddingTable() {
  return Make({.name = std::string(kEmbedding),
               .source = std::string(kEmbedding),
               .spec_name = std::string(kEmbedding),
               .num_rows = config_.text_vocab_size,
               .first_column = 0,
               .columns = config_.hidden_size,
               .scale_factor = static_cast<float>(std::sqrt(static_cast<double>(config_.hidden_size)))});
}

Result<Weight> TextWeights::PerLayerTable(int64_t layer) {
  const int64_t width = config_.hidden_size_per_layer_input;
  return Make({.name = Format("{}.layers.{}", kPerLayerEmbedding, layer),
               .source = std::string(kPerLayerEmbedding),
               .spec_name = std::string(kPerLayerEmbedding),
               .num_rows = config_.text_vocab_size,
               .first_column = layer * width,
               .columns = width,
               .scale_factor = static_cast<float>(std::sqrt(static_cast<double>(width)))});
}

}  // namespace taskpress
