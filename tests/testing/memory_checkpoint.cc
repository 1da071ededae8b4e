#include "tests/testing/memory_checkpoint.h"

#include <algorithm>

#include "converter/model_family.h"
#include "converter/weight_table.h"

namespace taskpress::testing {
namespace {

uint64_t Fnv1a(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3U;
  return hash;
}

// In [-1, 1): the finisher of splitmix64.
float Scrambled(uint64_t x) {
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBU;
  x ^= x >> 31U;
  return static_cast<float>(x >> 40U) * 0x1p-23F - 1.0F;
}

}  // namespace

void MemoryCheckpoint::Add(std::string name, Shape shape, std::vector<float> values) {
  values_[name] = std::move(values);
  const auto place = std::ranges::lower_bound(tensors_, name, {}, &CheckpointTensor::name);
  tensors_.insert(place, {.name = std::move(name), .type = DType::kF32, .shape = std::move(shape)});
}

void MemoryCheckpoint::Remove(std::string_view name) {
  std::erase_if(tensors_, [&](const CheckpointTensor& tensor) { return tensor.name == name; });
}

Status MemoryCheckpoint::ReadRows(const CheckpointTensor& tensor, RowBlock block, std::span<float> out) const {
  const int64_t columns = MatrixColumns(tensor.shape);
  const std::vector<float>& given = values_.find(tensor.name)->second;
  const uint64_t seed = Fnv1a(tensor.name);
  const auto changes = changed_.find(tensor.name);
  const std::map<int64_t, float> of_tensor = changes == changed_.end() ? std::map<int64_t, float>() : changes->second;
  size_t i = 0;
  for (int64_t row = block.first_row; row < block.first_row + block.num_rows; ++row) {
    for (int64_t column = block.first_column; column < block.first_column + block.num_columns; ++column) {
      const int64_t element = row * columns + column;
      float value = given.empty() ? Scrambled(seed + static_cast<uint64_t>(element)) : given[static_cast<size_t>(element)];
      if (!of_tensor.empty()) {
        if (const auto changed = of_tensor.find(element); changed != of_tensor.end()) value = changed->second;
      }
      out[i++] = value;
    }
  }
  elements_read_ += static_cast<int64_t>(i);
  return {};
}

std::shared_ptr<MemoryCheckpoint> MakeMemoryCheckpoint(const TextConfig& config, std::string_view prefix) {
  auto checkpoint = std::make_shared<MemoryCheckpoint>();
  for (const WeightRow& row : config.family->weights) {
    for (int64_t index = 0; index < WeightCount(row, config); ++index) {
      checkpoint->Add(std::string(prefix) + WeightName(row, index), row.shape(config, index));
    }
  }
  return checkpoint;
}

Json TinyConfigJson() {
  return {{"model_type", "gemma3n_text"},
          {"vocab_size", 12},
          {"vocab_size_per_layer_input", 10},
          {"hidden_size", 8},
          {"hidden_size_per_layer_input", 4},
          {"num_hidden_layers", 2},
          {"intermediate_size", {16, 8}},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"head_dim", 4},
          {"hidden_activation", "gelu_pytorch_tanh"},
          {"rms_norm_eps", 1e-6},
          {"max_position_embeddings", 128},
          {"sliding_window", 4},
          {"layer_types", {"sliding_attention", "full_attention"}},
          {"rope_theta", 1e6},
          {"rope_local_base_freq", 1e4},
          {"rope_scaling", nullptr},
          {"final_logit_softcapping", 30.0},
          {"altup_num_inputs", 2},
          {"altup_active_idx", 0},
          {"altup_coef_clip", 120.0},
          {"altup_correct_scale", true},
          {"laurel_rank", 2},
          {"num_kv_shared_layers", 0},
          {"activation_sparsity_pattern", {0.95, 0.0}},
          {"tie_word_embeddings", true}};
}

}  // namespace taskpress::testing
