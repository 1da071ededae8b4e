#include "converter/channel_strength.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace taskpress {
namespace {

constexpr int64_t kBlockFloats = 1 << 20;

std::vector<float> Magnitudes(std::vector<float> values) {
  for (float& value : values) value = std::abs(value);
  return values;
}

// For every row of a matrix, sqrt(sum_k (w_k gain_k)^2): the deviation of its product with normed values.
Result<std::vector<float>> RowDeviations(const TextWeights& weights, const std::string& name, const std::vector<float>& gain,
                                         const RowWork& work) {
  const WeightFloats matrix = TRY(weights.FloatsOf(name));
  std::vector<float> deviations(static_cast<size_t>(matrix.num_rows));
  const int64_t rows = std::max<int64_t>(1, kBlockFloats / matrix.columns);
  std::vector<std::vector<float>> scratch(static_cast<size_t>(RowWorkers(matrix.num_rows, rows, work)));
  TRY(ForEachRowBlock(matrix.num_rows, rows, work, [&](const RowRange& range) -> Status {
    std::vector<float>& values = scratch[static_cast<size_t>(range.worker)];
    values.resize(static_cast<size_t>(rows * matrix.columns));
    const std::span<float> block = std::span(values).first(static_cast<size_t>(range.count * matrix.columns));
    TRY(matrix.read(range.first_row, range.count, block));
    for (int64_t row = 0; row < range.count; ++row) {
      double sum = 0;
      for (int64_t k = 0; k < matrix.columns; ++k) {
        const double value = static_cast<double>(block[static_cast<size_t>(row * matrix.columns + k)]) *
                             static_cast<double>(gain.empty() ? 1.0F : gain[static_cast<size_t>(k)]);
        sum += value * value;
      }
      deviations[static_cast<size_t>(range.first_row + row)] = static_cast<float>(std::sqrt(sum));
    }
    return {};
  }));
  return deviations;
}

// Columns of one layer's part of the per-layer table, as the model adds them to the projection: rows of the table are multiplied by
// sqrt(width).
Result<std::vector<float>> TableStrength(const TextWeights& weights, const std::string& name, int64_t layer, int64_t width) {
  constexpr int64_t kRows = 512;
  const WeightFloats table = TRY(weights.FloatsOf(name));
  const int64_t rows = std::min(kRows, table.num_rows);
  std::vector<float> row(static_cast<size_t>(table.columns));
  std::vector<double> sums(static_cast<size_t>(width));
  for (int64_t i = 0; i < rows; ++i) {
    TRY(table.read(i * table.num_rows / rows, 1, row));
    for (int64_t j = 0; j < width; ++j) {
      const double value = row[static_cast<size_t>(layer * width + j)];
      sums[static_cast<size_t>(j)] += value * value;
    }
  }
  std::vector<float> strength;
  for (const double sum : sums)
    strength.push_back(static_cast<float>(std::sqrt(sum / static_cast<double>(rows * width)) * static_cast<double>(width)));
  return strength;
}

}  // namespace

double GeluStrength(double deviation) {
  constexpr int kSteps = 64;
  constexpr double kEnd = 5;  // deviations
  double sum = 0;
  double total = 0;
  for (int i = -kSteps; i <= kSteps; ++i) {
    const double z = kEnd * i / kSteps;
    const double density = std::exp(-z * z / 2);
    const double x = z * deviation;
    const double inner = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
    const double gelu = 0.5 * x * (1 + std::tanh(inner));
    sum += density * gelu * gelu;
    total += density;
  }
  return std::sqrt(sum / total);
}

Result<std::vector<float>> EstimateStrength(const FoldRow& row, int64_t index, int64_t repeat, const TextWeights& weights,
                                            const TextConfig& config, const RowWork& work) {
  const std::vector<float> gain = Magnitudes(TRY(weights.Floats(WithIndex(row.gain, index))));
  switch (row.strength) {
    case ChannelStrength::kGain:
      return gain;
    case ChannelStrength::kGated: {
      const std::vector<float> gate = TRY(RowDeviations(weights, WithIndex("layers.{}.mlp.gate_proj.weight", index), gain, work));
      std::vector<float> strength = TRY(RowDeviations(weights, WithIndex("layers.{}.mlp.up_proj.weight", index), gain, work));
      for (size_t j = 0; j < strength.size(); ++j) strength[j] *= static_cast<float>(GeluStrength(static_cast<double>(gate[j])));
      return strength;
    }
    case ChannelStrength::kValue:
      return RowDeviations(weights, WithIndex("layers.{}.self_attn.v_proj.weight", index), gain, work);
    case ChannelStrength::kPerLayer: {
      const std::vector<float> table =
          TRY(TableStrength(weights, "embed_tokens_per_layer.weight", repeat, config.hidden_size_per_layer_input));
      std::vector<float> scale;
      if (config.altup_correct_scale) scale = Magnitudes(TRY(weights.Floats(WithIndex("layers.{}.altup.correct_output_scale", repeat))));
      const std::vector<float> gate = TRY(RowDeviations(weights, WithIndex("layers.{}.per_layer_input_gate.weight", repeat), scale, work));
      std::vector<float> strength;
      for (size_t j = 0; j < table.size(); ++j) {
        const double own = std::hypot(static_cast<double>(gain[j]), static_cast<double>(table[j]));
        strength.push_back(static_cast<float>(own * GeluStrength(static_cast<double>(gate[j]))));
      }
      return strength;
    }
  }
  return gain;
}

}  // namespace taskpress
