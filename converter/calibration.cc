#include "converter/calibration.h"

#include <algorithm>
#include <cmath>
#include <ranges>

#include "quantizer/gptq_source.h"
#include "schema/base/hash.h"

namespace taskpress {
namespace {

// One site at work and the one that the stream goes on to; and of a matrix in pieces, those before the one at work.
constexpr size_t kKeptInputs = 4;

std::string KeyOf(const CalibratedInputs& inputs, std::string_view site, const QuantSpec& spec) {
  return Format("{} {} {} {:08x} {} {} {}", site, inputs.first_column, inputs.columns, Crc32(0, std::as_bytes(std::span(inputs.factors))),
                spec.block_size > 0, inputs.nested, spec.two_terms);
}

double Square(double value) { return value * value; }

std::vector<float> ImportanceOf(const SecondMoments& moments) {
  const auto tokens = static_cast<double>(std::max<int64_t>(1, moments.tokens));
  std::vector<float> importance;
  for (const double square : moments.squares) importance.push_back(static_cast<float>((square + moments.activation_step2 / 12) / tokens));
  return importance;
}

}  // namespace

Result<SecondMoments> SelectMoments(SecondMoments moments, int64_t first_column, int64_t columns, std::span<const float> factors) {
  const auto all = static_cast<size_t>(moments.columns);
  const auto first = static_cast<size_t>(first_column);
  const auto count = static_cast<size_t>(columns);
  if (first_column < 0 || columns < 1 || first + count > all || (!factors.empty() && factors.size() != count)) {
    return Fail(ErrorCode::kCalibrationMismatch, "columns [{}, +{}) of inputs with {} columns", first_column, columns, moments.columns);
  }
  if (factors.empty() && count == all) return moments;
  const auto inverse = [&](size_t j) { return factors.empty() ? 1.0 : 1 / static_cast<double>(factors[j]); };
  const float before = *std::ranges::max_element(moments.max_magnitudes);
  for (size_t j = 0; j < count; ++j) {
    moments.sums[j] = moments.sums[first + j] * inverse(j);
    moments.squares[j] = moments.squares[first + j] * Square(inverse(j));
    moments.max_magnitudes[j] = static_cast<float>(static_cast<double>(moments.max_magnitudes[first + j]) * inverse(j));
  }
  if (!moments.products.empty()) {  // in place: nothing is written before it was read
    for (size_t j = 0; j < count; ++j) {
      for (size_t k = 0; k <= j; ++k) {
        const double product = static_cast<double>(moments.products[(first + j) * all + first + k]);
        moments.products[j * count + k] = static_cast<float>(product * inverse(j) * inverse(k));
      }
    }
    moments.products.resize(count * count);
  }
  moments.sums.resize(count);
  moments.squares.resize(count);
  moments.max_magnitudes.resize(count);
  moments.columns = columns;
  const float after = *std::ranges::max_element(moments.max_magnitudes);
  if (before > 0) moments.activation_step2 *= Square(static_cast<double>(after) / static_cast<double>(before));
  return moments;
}

Calibration::Calibration(CalibrationFile file) : file_(std::move(file)) {
  for (const CalibrationSite& site : file_.sites()) {
    for (const auto name : std::views::split(std::string_view(site.name), ' '))
      sites_.try_emplace(std::string(std::string_view(name)), site);
  }
}

Result<const CalibrationSite*> Calibration::SiteOf(const CalibratedInputs& inputs) const {
  const auto site = sites_.find(inputs.weight);
  const int64_t end = inputs.first_column + inputs.columns;
  if (site != sites_.end() && end <= site->second.columns) return &site->second;
  const std::string found = site == sites_.end() ? "none of it" : Format("{}", site->second.columns);
  return Fail(ErrorCode::kCalibrationMismatch,
              "{}: \"{}\" reads inputs up to column {}, found {}; calibrate this checkpoint and slice again", file_.path().string(),
              inputs.weight, end, found);
}

Status Calibration::Check(const CalibratedInputs& inputs) const {
  TRY(SiteOf(inputs));
  return {};
}

Result<SecondMoments> Calibration::Moments(const CalibratedInputs& inputs) const {
  const CalibrationSite* site = TRY(SiteOf(inputs));
  Result<SecondMoments> selected = SelectMoments(TRY(file_.Read(*site)), inputs.first_column, inputs.columns, inputs.factors);
  if (!selected) return std::unexpected(WithContext(std::move(selected).error(), Format("{}: {}", file_.path().string(), inputs.weight)));
  return selected;
}

Result<MeasuredInputs> Calibration::Measured(const CalibratedInputs& inputs) const {
  const SecondMoments moments = TRY(Moments(inputs));
  const auto tokens = static_cast<double>(std::max<int64_t>(1, moments.tokens));
  MeasuredInputs measured{.strengths = {}, .step2 = moments.activation_step2 / tokens};
  for (const double square : moments.squares) measured.strengths.push_back(static_cast<float>(std::sqrt(square / tokens)));
  return measured;
}

Result<std::vector<float>> Calibration::Importance(const CalibratedInputs& inputs, const QuantSpec& spec) const {
  SecondMoments moments = TRY(Moments(inputs));
  if (spec.two_terms) moments.activation_step2 = TwoTermStep2(moments);
  return ImportanceOf(moments);
}

Result<std::shared_ptr<const GptqInput>> Calibration::MakeInput(const CalibratedInputs& inputs, const QuantSpec& spec) const {
  SecondMoments moments;
  SecondMoments whole;
  if (inputs.nested) {
    whole = TRY(Moments({.weight = inputs.weight, .columns = inputs.first_column + inputs.columns, .factors = inputs.factors}));
    moments = TRY(SelectMoments(whole, inputs.first_column, inputs.columns, {}));
  } else {
    moments = TRY(Moments(inputs));
  }
  if (spec.two_terms) moments.activation_step2 = TwoTermStep2(moments);
  std::vector<float> importance = ImportanceOf(moments);
  const GptqOptions options = DampingFor(moments, spec);
  GptqFactor factor = TRY(GptqFactor::Make(std::move(moments), options));
  std::optional<GptqCross> cross;
  if (inputs.nested) cross = TRY(GptqCross::Make(whole, inputs.first_column, factor));
  return std::make_shared<const GptqInput>(std::move(factor), std::move(importance), std::move(cross));
}

Result<std::shared_ptr<const GptqInput>> Calibration::GptqInputOf(const CalibratedInputs& inputs, const QuantSpec& spec) const {
  const CalibrationSite* site = TRY(SiteOf(inputs));
  const std::string key = KeyOf(inputs, site->name, spec);
  std::promise<Result<std::shared_ptr<const GptqInput>>> promise;
  MadeInput made;
  bool mine = false;
  {
    const std::scoped_lock lock(mutex_);
    const auto found = std::ranges::find(made_, key, &std::pair<std::string, MadeInput>::first);
    mine = found == made_.end();
    if (mine) {
      made_.emplace_front(key, promise.get_future().share());
      if (made_.size() > kKeptInputs) made_.pop_back();
    } else {
      made_.splice(made_.begin(), made_, found);
    }
    made = made_.front().second;
  }
  if (mine) {
    try {
      promise.set_value(MakeInput(inputs, spec));
    } catch (...) {
      promise.set_exception(std::current_exception());
    }
  }
  return made.get();
}

Result<std::string> ModelFingerprint(const Checkpoint& checkpoint) {
  Sha256 hash;
  std::vector<float> row;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    hash.Update(AsBytes(Format("{} {} {}\n", tensor.name, NameOf(tensor.type), ToString(tensor.shape))));
    if (MatrixRows(tensor.shape) < 1 || MatrixColumns(tensor.shape) < 1) continue;
    row.resize(static_cast<size_t>(MatrixColumns(tensor.shape)));
    TRY(checkpoint.ReadRows(tensor, {.first_row = 0, .num_rows = 1, .first_column = 0, .num_columns = MatrixColumns(tensor.shape)}, row));
    hash.Update(std::as_bytes(std::span(row)));
  }
  return "sha256:" + hash.FinishHex();
}

}  // namespace taskpress
