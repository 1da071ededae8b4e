#include "tools/layer_errors.h"

#include <algorithm>
#include <cmath>

#include "quantizer/quantize.h"
#include "runtime/layer_taps.h"
#include "tools/stored_weights.h"

namespace taskpress {
namespace {

struct StreamSums {
  double squared_relative_error = 0;
  double cosine = 0;
};

// One position of one stream. Of two zero vectors the error is 0 and the cosine 1.
void AddValues(std::span<const float> a, std::span<const float> b, StreamSums& sums) {
  double dot = 0;
  double of_a = 0;
  double of_b = 0;
  double error = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const auto x = static_cast<double>(a[i]);
    const auto y = static_cast<double>(b[i]);
    dot += x * y;
    of_a += x * x;
    of_b += y * y;
    error += (x - y) * (x - y);
  }
  sums.squared_relative_error += error == 0 ? 0 : error / of_b;
  sums.cosine += error == 0 ? 1 : dot / std::sqrt(of_a * of_b);
}

// Both sides' taps, in the order of layers; reading order is another one.
class Streams {
 public:
  static Result<Streams> Make(const Session& a, const Session& b) {
    Streams streams;
    streams.a_ = TRY(FindLayerTaps(a.model().prefill_decode));
    streams.b_ = TRY(FindLayerTaps(b.model().prefill_decode));
    const auto key = [](const LayerTap& tap) { return std::pair(tap.layer, tap.stream); };
    std::vector<std::pair<int64_t, int64_t>> of_b;
    for (const LayerTap& tap : streams.a_) streams.keys_.push_back(key(tap));
    for (const LayerTap& tap : streams.b_) of_b.push_back(key(tap));
    std::ranges::sort(streams.keys_);
    std::ranges::sort(of_b);
    if (streams.keys_ != of_b) {
      return Fail(ErrorCode::kNotComparable, "--layers: {} streams behind the layers of the one, {} behind those of the other",
                  streams.keys_.size(), of_b.size());
    }
    streams.sums_.resize(streams.keys_.size());
    return streams;
  }

  Status AddPosition(Session& a, Session& b, int32_t token) {
    std::vector<std::vector<float>> values(keys_.size());
    TRY(b.Decode(token, TapsOf(b_), [&](size_t i, std::span<const float> of_b) -> Status {
      values[IndexOf(b_[i])].assign(of_b.begin(), of_b.end());
      return {};
    }));
    TRY(a.Decode(token, TapsOf(a_), [&](size_t i, std::span<const float> of_a) -> Status {
      const size_t index = IndexOf(a_[i]);
      if (of_a.size() != values[index].size()) {
        return Fail(ErrorCode::kNotComparable, "--layers: layer {} is {} wide in the one, {} in the other", a_[i].layer, of_a.size(),
                    values[index].size());
      }
      AddValues(of_a, values[index], sums_[index]);
      return {};
    }));
    ++positions_;
    return {};
  }

  void Finish(LayerErrors& errors) const {
    errors.positions = positions_;
    const auto count = static_cast<double>(std::max<int64_t>(positions_, 1));
    for (size_t i = 0; i < keys_.size(); ++i) {
      errors.streams.push_back({.layer = keys_[i].first,
                                .stream = keys_[i].second,
                                .relative_error = std::sqrt(sums_[i].squared_relative_error / count),
                                .cosine = sums_[i].cosine / count});
    }
  }

 private:
  [[nodiscard]] static std::vector<Tap> TapsOf(std::span<const LayerTap> layers) {
    std::vector<Tap> taps;
    for (const LayerTap& layer : layers) taps.push_back(layer.tap);
    return taps;
  }
  [[nodiscard]] size_t IndexOf(const LayerTap& tap) const {
    return static_cast<size_t>(std::ranges::lower_bound(keys_, std::pair(tap.layer, tap.stream)) - keys_.begin());
  }

  std::vector<LayerTap> a_;  // in reading order
  std::vector<LayerTap> b_;
  std::vector<std::pair<int64_t, int64_t>> keys_;  // layer and stream, ascending
  std::vector<StreamSums> sums_;                   // of keys_
  int64_t positions_ = 0;
};

Status MeasureStreams(Session& a, Session& b, std::span<const std::vector<int32_t>> windows, int64_t most_positions, const RowWork& work,
                      LayerErrors& errors) {
  Streams streams = TRY(Streams::Make(a, b));
  int64_t left = most_positions;
  for (const std::vector<int32_t>& window : windows) {
    a.Reset();
    b.Reset();
    for (size_t i = 0; i < window.size() && left > 0; ++i, --left) {
      TRY(CheckNotStopped(work.stop));
      TRY(streams.AddPosition(a, b, window[i]));
    }
  }
  streams.Finish(errors);
  return {};
}

// Rows of `weight` as floats.
Result<FloatRowReader> ReaderOf(const StoredWeight& weight, std::vector<float>& scratch) {
  const std::span<const float> scales = TRY(weight.Scales(scratch));
  const auto rows = std::make_shared<const StoredRows>(weight.bytes(), scales, weight.tensor->shape[0]);
  const int64_t columns = weight.tensor->shape[1];
  return [rows, spec = weight.spec(), columns](int64_t first_row, int64_t count, std::span<float> values) -> Status {
    std::vector<std::byte> packed(static_cast<size_t>(count) * rows->row_bytes());
    std::vector<float> row_scales(static_cast<size_t>(count * rows->scales_per_row()));
    TRY(rows->ReadRows(first_row, count, packed, row_scales));
    DequantizeRows(spec, packed, row_scales, count, columns, values);
    return {};
  };
}

bool IsMatrix(const StoredWeight& weight) {
  const DType type = weight.tensor->type;
  const bool known = type == DType::kF32 || type == DType::kF16 || type == DType::kI8 || type == DType::kI4;
  const auto& quantizations = weight.graph->quantizations;
  // Scales for every row, as our bundles have them; a table with one scale for all is left out.
  const bool per_row = weight.tensor->quantization == kNone ||
                       (weight.tensor->shape.size() == 2 &&
                        quantizations[static_cast<size_t>(weight.tensor->quantization)].num_scales == weight.tensor->shape[0] &&
                        quantizations[static_cast<size_t>(weight.tensor->quantization)].axis == 0);
  return known && per_row && weight.tensor->shape.size() == 2 && !weight.tensor->name.ends_with(".scales");
}

Status MeasureMatrices(const TextModel& a, const TextModel& b, const RowWork& work, LayerErrors& errors) {
  const std::vector<const Graph*> graphs_a = GraphsOf(a);
  const std::vector<const Graph*> graphs_b = GraphsOf(b);
  const WeightsByName reference = WeightsOf(graphs_b);
  for (const auto& [name, weight] : WeightsOf(graphs_a)) {
    if (!IsMatrix(weight) || name.starts_with("const.")) continue;
    const auto found = reference.find(name);
    if (found == reference.end() || !IsMatrix(found->second) || found->second.tensor->shape != weight.tensor->shape) {
      errors.skipped.emplace_back(name);
      continue;
    }
    std::vector<float> scratch_a;
    std::vector<float> scratch_b;
    const std::span<const float> scales = TRY(weight.Scales(scratch_a));
    const StoredRows rows(weight.bytes(), scales, weight.tensor->shape[0]);
    const FloatRowReader original = TRY(ReaderOf(found->second, scratch_b));
    TensorError error = TRY(MeasureTensorError(std::string(name), weight.spec(), weight.tensor->shape[1], rows, original, work));
    if (error.noise > 0) errors.matrices.push_back(std::move(error));
  }
  return {};
}

std::string NameOfLayer(int64_t layer) { return layer == kBeforeLayers ? "embedding" : Format("{}", layer); }

}  // namespace

Result<LayerErrors> MeasureLayerErrors(Session& a, Session& b, std::span<const std::vector<int32_t>> windows, int64_t most_positions,
                                       const RowWork& work) {
  LayerErrors errors;
  TRY(MeasureMatrices(a.model(), b.model(), work, errors));
  TRY(MeasureStreams(a, b, windows, most_positions, work, errors));
  return errors;
}

std::string FormatLayerErrors(const LayerErrors& errors) {
  std::string text =
      Format("residual stream over {} positions\n{:>9}  {:>6}  {:>10}  {:>9}\n", errors.positions, "layer", "stream", "relative", "cosine");
  for (const StreamError& stream : errors.streams) {
    text += Format("{:>9}  {:>6}  {:>10.3e}  {:>9.6f}\n", NameOfLayer(stream.layer), stream.stream, stream.relative_error, stream.cosine);
  }
  if (errors.matrices.empty()) {
    text += "every matrix is exact\n";
  } else {
    text += "matrices that are not exact\n" + FormatErrorReport(errors.matrices);
  }
  for (const std::string& name : errors.skipped) text += Format("not compared: \"{}\" has no counterpart of its shape\n", name);
  return text;
}

OrderedJson LayerErrorsJson(const LayerErrors& errors) {
  OrderedJson layers = OrderedJson::array();
  for (const StreamError& stream : errors.streams) {
    layers.push_back(
        {{"layer", stream.layer}, {"stream", stream.stream}, {"relative_error", stream.relative_error}, {"cosine", stream.cosine}});
  }
  return {{"positions", errors.positions},
          {"layers", layers},
          {"matrices", ErrorReportJson(errors.matrices)},
          {"not_compared", errors.skipped}};
}

}  // namespace taskpress
