#include "converter/choose_folds.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "converter/channel_strength.h"
#include "converter/model_family.h"
#include "quantizer/quantize.h"
#include "quantizer/second_moments.h"

namespace taskpress {
namespace {

constexpr int64_t kSampledRows = 128;  // of each matrix; of a table
constexpr double kLeastShare = 1e-3;   // of the median: what a weak or dead channel counts at least
// The range of a channel in root mean squares, for the step of the activations' rounding. Normal values over a thousand tokens.
constexpr double kRangePerStrength = 6.5;

// A matrix whose columns a fold multiplies, or a table whose columns it divides. Rows are a sample.
struct Consumer {
  QuantSpec spec;
  bool divided = false;
  std::vector<float> rows;      // [sampled, columns]
  std::vector<size_t> channel;  // [columns] of the fold
  std::vector<float> strength;  // [columns] of the input; of a table: how much its columns weigh in what reads them
  double signal = 0;            // sum of (w x)^2
  double step2 = 0;             // measured mean square of the step of the activations' rounding; 0: not known
};

class FoldChooser {
 public:
  FoldChooser(const TextWeights& weights, const TextConfig& config, const InputStrengths& inputs, const RowWork& work)
      : weights_(weights), config_(config), inputs_(inputs), work_(work) {}

  // No steps: not worth it.
  Result<Fold> Choose(const FoldRow& row, int64_t index) const {
    Fold fold{.name = FoldName(row, index), .steps = {}};
    if (!ReachesIntegers(row, index)) return fold;
    const auto channels = static_cast<size_t>(FoldChannels(row, index, config_));
    const std::vector<Consumer> consumers = TRY(Consumers(row, index));
    const std::vector<double> strength = Balance(consumers, channels, [](const Consumer& consumer, size_t column) {
      return consumer.divided ? 0.0 : static_cast<double>(consumer.strength[column]);
    });
    const std::vector<double> weight = WeightOfColumns(consumers, channels);

    constexpr auto kExponents = std::to_array<double>({0.0, 0.25, 0.5, 0.75, 1.0});
    std::vector<int8_t> none(channels, 0);
    double least = TRY(Loss(consumers, none));
    for (const double a : kExponents) {
      for (const double b : kExponents) {
        std::vector<int8_t> steps = Steps(strength, weight, a, b);
        const double loss = TRY(Loss(consumers, steps));
        if (loss >= least) continue;
        least = loss;
        fold.steps = std::move(steps);
      }
    }
    return fold;
  }

 private:
  [[nodiscard]] bool ReachesIntegers(const FoldRow& row, int64_t index) const {
    return std::ranges::any_of(row.parts, [&](const FoldPart& part) {
      if (part.side == FoldSide::kGain || part.side == FoldSide::kRows) return false;
      const std::vector<std::string> names = NamesOf(row, part, index, config_);
      return std::ranges::any_of(names, [&](const std::string& name) { return weights_.SpecOf(name).is_quantized(); });
    });
  }

  Result<std::vector<Consumer>> Consumers(const FoldRow& row, int64_t index) const {
    std::vector<Consumer> consumers;
    for (const FoldPart& part : row.parts) {
      if (part.side != FoldSide::kColumns && part.side != FoldSide::kQueryHeadColumns) continue;
      const std::vector<std::string> names = NamesOf(row, part, index, config_);
      for (size_t i = 0; i < names.size(); ++i) {
        Consumer consumer = TRY(Sample(names[i], 0, 0));
        if (inputs_) {
          MeasuredInputs measured = TRY(inputs_(names[i], static_cast<int64_t>(consumer.channel.size())));
          consumer.strength = std::move(measured.strengths);
          consumer.step2 = measured.step2;
        }
        if (part.side == FoldSide::kQueryHeadColumns) {
          for (size_t c = 0; c < consumer.channel.size(); ++c) consumer.channel[c] = ChannelOfQueryColumn(c, config_);
        }
        if (consumer.strength.empty()) {
          const std::vector<float> channels = TRY(EstimateStrength(row, index, static_cast<int64_t>(i), weights_, config_, work_));
          for (const size_t channel : consumer.channel) consumer.strength.push_back(channels[channel]);
        }
        consumer.signal = SignalOf(consumer);
        consumers.push_back(std::move(consumer));
      }
    }
    TRY(AddTables(row, index, consumers));
    return consumers;
  }

  // An error in a table's column weighs as much as the columns of the matrix that reads it.
  Status AddTables(const FoldRow& row, int64_t index, std::vector<Consumer>& consumers) const {
    const size_t readers = consumers.size();
    for (const FoldPart& part : row.parts) {
      if (part.side != FoldSide::kTable) continue;
      const std::string name = NamesOf(row, part, index, config_).front();
      for (size_t layer = 0; layer < readers; ++layer) {
        const Consumer& reader = consumers[layer];
        const size_t width = reader.channel.size();
        Consumer table = TRY(Sample(name, static_cast<int64_t>(layer * width), static_cast<int64_t>(width)));
        table.divided = true;
        table.strength.assign(width, 0.0F);
        for (size_t at = 0; at < reader.rows.size(); ++at) table.strength[at % width] += reader.rows[at] * reader.rows[at];
        for (float& value : table.strength) value = std::sqrt(value);
        table.signal = SignalOf(table);
        consumers.push_back(std::move(table));
      }
    }
    return {};
  }

  static double SignalOf(const Consumer& consumer) {
    double signal = 0;
    for (size_t at = 0; at < consumer.rows.size(); ++at) {
      const double value = static_cast<double>(consumer.rows[at]) * static_cast<double>(consumer.strength[at % consumer.channel.size()]);
      signal += value * value;
    }
    return signal;
  }

  // Rows spread over the matrix; `width` columns from `first_column` on, 0: all.
  Result<Consumer> Sample(const std::string& name, int64_t first_column, int64_t width) const {
    const WeightFloats matrix = TRY(weights_.FloatsOf(name));
    Consumer consumer{.spec = weights_.SpecOf(name)};
    if (width == 0) width = matrix.columns;
    const int64_t rows = std::min(kSampledRows, matrix.num_rows);
    std::vector<float> row(static_cast<size_t>(matrix.columns));
    for (int64_t i = 0; i < rows; ++i) {
      TRY(matrix.read(i * matrix.num_rows / rows, 1, row));
      const std::span<const float> part = std::span(row).subspan(static_cast<size_t>(first_column), static_cast<size_t>(width));
      consumer.rows.insert(consumer.rows.end(), part.begin(), part.end());
    }
    for (int64_t c = 0; c < width; ++c) consumer.channel.push_back(static_cast<size_t>(c));
    return consumer;
  }

  // Root mean square over consumers of something per column, each consumer by its own average, floored.
  template <typename Of>
  static std::vector<double> Balance(const std::vector<Consumer>& consumers, size_t channels, const Of& of) {
    std::vector<double> sums(channels);
    for (const Consumer& consumer : consumers) {
      double total = 0;
      for (size_t c = 0; c < consumer.channel.size(); ++c) total += of(consumer, c) * of(consumer, c);
      if (!(total > 0)) continue;
      for (size_t c = 0; c < consumer.channel.size(); ++c) sums[consumer.channel[c]] += of(consumer, c) * of(consumer, c) / total;
    }
    std::vector<double> sorted = sums;
    std::ranges::nth_element(sorted, sorted.begin() + static_cast<ptrdiff_t>(sorted.size() / 2));
    const double least = std::max(sorted[sorted.size() / 2] * kLeastShare * kLeastShare, std::numeric_limits<double>::min());
    for (double& sum : sums) sum = std::sqrt(std::max(sum, least));
    return sums;
  }

  // Root mean square of each channel's columns; of a table's, the inverse: it is divided.
  static std::vector<double> WeightOfColumns(const std::vector<Consumer>& consumers, size_t channels) {
    std::vector<std::vector<double>> columns;
    for (const Consumer& consumer : consumers) {
      const size_t width = consumer.channel.size();
      std::vector<double>& sums = columns.emplace_back(width);
      for (size_t at = 0; at < consumer.rows.size(); ++at) {
        sums[at % width] += static_cast<double>(consumer.rows[at]) * static_cast<double>(consumer.rows[at]);
      }
      for (double& sum : sums) sum = std::sqrt(sum);
    }
    return Balance(consumers, channels, [&](const Consumer& consumer, size_t c) {
      const double value = columns[static_cast<size_t>(&consumer - consumers.data())][c];
      return consumer.divided ? (value > 0 ? 1 / value : 0.0) : value;
    });
  }

  // s = x^a / w^b around a geometric mean of one, on the grid.
  static std::vector<int8_t> Steps(const std::vector<double>& strength, const std::vector<double>& weight, double a, double b) {
    std::vector<double> octaves(strength.size());
    double mean = 0;
    for (size_t j = 0; j < octaves.size(); ++j) {
      octaves[j] = a * std::log2(strength[j]) - b * std::log2(weight[j]);
      mean += octaves[j] / static_cast<double>(octaves.size());
    }
    std::vector<int8_t> steps;
    for (const double octave : octaves) {
      const double step = std::round((octave - mean) * kFoldStepsPerOctave);
      steps.push_back(static_cast<int8_t>(std::clamp<double>(step, -kMaxFoldStep, kMaxFoldStep)));
    }
    return steps;
  }

  Result<double> Loss(const std::vector<Consumer>& consumers, const std::vector<int8_t>& steps) const {
    std::vector<double> losses(consumers.size());
    TRY(ForEachRowBlock(static_cast<int64_t>(consumers.size()), 1, work_, [&](const RowRange& range) -> Status {
      const auto i = static_cast<size_t>(range.first_row);
      losses[i] = TRY(LossOf(consumers[i], steps));
      return {};
    }));
    double sum = 0;
    for (const double loss : losses) sum += loss;
    return sum;
  }

  static Result<double> LossOf(const Consumer& consumer, const std::vector<int8_t>& steps) {
    if (!consumer.spec.is_quantized() || !(consumer.signal > 0)) return 0.0;
    const size_t width = consumer.channel.size();
    const auto columns = static_cast<int64_t>(width);
    const auto rows = static_cast<int64_t>(consumer.rows.size() / width);
    std::vector<float> factor(width);
    std::vector<float> undone(width);  // strength over factor
    float range = 0;
    float range_before = 0;
    for (size_t c = 0; c < width; ++c) {
      const int step = consumer.divided ? -steps[consumer.channel[c]] : steps[consumer.channel[c]];
      factor[c] = std::exp2(static_cast<float>(step) / kFoldStepsPerOctave);
      undone[c] = consumer.strength[c] / factor[c];
      range = std::max(range, undone[c]);
      range_before = std::max(range_before, consumer.strength[c]);
    }
    std::vector<float> scaled(consumer.rows);
    double squares = 0;
    for (size_t at = 0; at < scaled.size(); ++at) {
      scaled[at] *= factor[at % width];
      squares += static_cast<double>(scaled[at]) * static_cast<double>(scaled[at]);
    }
    std::vector<std::byte> packed(static_cast<size_t>(rows) * TRY(PackedRowBytes(consumer.spec, columns)));
    std::vector<float> scales(static_cast<size_t>(rows * consumer.spec.ScalesPerRow(columns)));
    std::vector<float> rounded(scaled.size());
    TRY(QuantizeRows(consumer.spec, scaled, rows, columns, packed, scales));
    DequantizeRows(consumer.spec, packed, scales, rows, columns, rounded);
    double loss = 0;
    for (size_t at = 0; at < scaled.size(); ++at) {
      const double error = static_cast<double>((scaled[at] - rounded[at]) * undone[at % width]);
      loss += error * error;
    }
    if (!consumer.divided) {
      const auto ratio = static_cast<double>(range / range_before);
      const double step = kRangePerStrength * static_cast<double>(range) / 255;
      double step2 = consumer.step2 > 0 ? consumer.step2 * ratio * ratio : step * step;
      if (consumer.spec.two_terms) {
        const auto squared = [](double sum, float value) { return sum + static_cast<double>(value) * static_cast<double>(value); };
        step2 = TwoTermStep2(std::accumulate(undone.begin(), undone.end(), 0.0, squared) / static_cast<double>(width));
      }
      loss += step2 / 12 * squares;
    }
    return loss / consumer.signal;
  }

  const TextWeights& weights_;
  const TextConfig& config_;
  const InputStrengths& inputs_;
  const RowWork& work_;
};

}  // namespace

Result<std::vector<Fold>> ChooseFolds(const TextWeights& weights, const TextConfig& config, std::span<const std::string> names,
                                      const InputStrengths& inputs, const RowWork& work) {
  const std::span<const FoldRow> table = config.family->folds;
  for (const std::string& name : names) {
    if (std::ranges::find(table, name, &FoldRow::name) != table.end()) continue;
    std::string known;
    for (const FoldRow& row : table) known += Format("{}{}", known.empty() ? "" : ", ", row.name);
    return Fail(ErrorCode::kUsage, "fold \"{}\": {} has {}", name, config.family->title, known);
  }
  std::vector<Fold> folds;
  const FoldChooser chooser(weights, config, inputs, work);
  for (const FoldRow& row : table) {
    if (!names.empty() && !std::ranges::contains(names, row.name)) continue;
    for (int64_t index = 0; index < FoldCount(row, config); ++index) {
      TRY(CheckNotStopped(work.stop));
      Fold fold = TRY(chooser.Choose(row, index));
      if (!fold.steps.empty()) folds.push_back(std::move(fold));
    }
  }
  return folds;
}

}  // namespace taskpress
