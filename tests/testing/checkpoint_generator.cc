#include "tests/testing/checkpoint_generator.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>

#include "schema/base/error.h"
#include "schema/base/half.h"
#include "schema/base/output_file.h"

namespace taskpress {
namespace {

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection that turns counters into independent-looking words.
constexpr uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ULL;

// FNV-1a of the name, mixed with the seed.
uint64_t KeyOf(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return Mix(hash ^ Mix(seed + kGolden));
}

struct Distribution {
  double mean = 0;
  double sigma = 1;
};

// bf16 values, nearly normal: the sum of four random bytes (Irwin-Hall; mean 510, variance 4 * (256^2 - 1) / 12, ends at 3.45 sigma).
class NormalSource final : public ByteSource {
 public:
  // Elements from `repeat_from` on repeat the first `row` elements.
  NormalSource(uint64_t key, Distribution distribution, uint64_t elements, uint64_t repeat_from, uint64_t row,
               std::shared_ptr<tbb::task_arena> arena)
      : key_(key), elements_(elements), repeat_from_(repeat_from), row_(row), arena_(std::move(arena)) {
    const double scale = distribution.sigma / std::sqrt(21845.0);
    for (size_t sum = 0; sum < values_.size(); ++sum) {
      values_[sum] = FloatToBf16(static_cast<float>(distribution.mean + scale * (static_cast<double>(sum) - 510.0)));
    }
  }

  [[nodiscard]] uint64_t size() const override { return elements_ * sizeof(uint16_t); }

  Status Read(uint64_t offset, ByteSpan out) const override {
    const uint64_t first_block = offset / kBlockBytes;
    const uint64_t end_block = (offset + out.size() + kBlockBytes - 1) / kBlockBytes;
    arena_->execute([&] {
      tbb::parallel_for(tbb::blocked_range<uint64_t>(first_block, end_block), [&](const tbb::blocked_range<uint64_t>& blocks) {
        for (uint64_t block = blocks.begin(); block != blocks.end(); ++block) CopyBlock(block, offset, out);
      });
    });
    return {};
  }

 private:
  static constexpr uint64_t kBlockElements = 8192;
  static constexpr uint64_t kBlockBytes = kBlockElements * sizeof(uint16_t);

  // The part of a block that lies in [offset, offset + out.size()).
  void CopyBlock(uint64_t block, uint64_t offset, ByteSpan out) const {
    std::array<uint16_t, kBlockElements> values{};
    const uint64_t first = block * kBlockElements;
    if (first + kBlockElements <= repeat_from_) {
      FillPairs(first / 2, values);
    } else {
      for (uint64_t i = 0; i < kBlockElements; ++i) values[i] = At(first + i);
    }
    const uint64_t begin = std::max(offset, block * kBlockBytes);
    const uint64_t end = std::min(offset + out.size(), (block + 1) * kBlockBytes);
    std::ranges::copy(std::as_bytes(std::span(values)).subspan(begin - block * kBlockBytes, end - begin),
                      out.subspan(begin - offset).begin());
  }

  // One random word gives two elements.
  void FillPairs(uint64_t first_pair, std::span<uint16_t> out) const {
    for (uint64_t i = 0; i < out.size() / 2; ++i) {
      const uint64_t sums = ByteSums(first_pair + i);
      out[2 * i] = values_[sums & 0xffff];
      out[2 * i + 1] = values_[sums >> 32 & 0xffff];
    }
  }

  // Bits 0 to 15: sum of the four low bytes of the pair's word; bits 32 to 47: of the four high ones.
  [[nodiscard]] uint64_t ByteSums(uint64_t pair) const {
    const uint64_t word = Mix(key_ + pair * kGolden);
    const uint64_t sums = (word & 0x00ff00ff00ff00ffULL) + (word >> 8 & 0x00ff00ff00ff00ffULL);
    return sums + (sums >> 16);
  }

  [[nodiscard]] uint16_t At(uint64_t element) const {
    const uint64_t origin = element < repeat_from_ ? element : (element - repeat_from_) % row_;
    return values_[ByteSums(origin / 2) >> (origin % 2 * 32) & 0xffff];
  }

  uint64_t key_;
  uint64_t elements_;
  uint64_t repeat_from_;
  uint64_t row_;
  std::shared_ptr<tbb::task_arena> arena_;
  std::array<uint16_t, 4 * 255 + 1> values_{};
};

// Collects the tensors of a model in the order of its modules.
class TensorList {
 public:
  TensorList(uint64_t seed, int threads) : seed_(seed), arena_(std::make_shared<tbb::task_arena>(std::max(threads, 1))) {}

  void Add(std::string name, Shape shape, Distribution distribution, int64_t distinct_rows = 0) {
    name.insert(0, "model.language_model.");
    const auto elements = static_cast<uint64_t>(NumElements(shape).value_or(0));
    const auto row = static_cast<uint64_t>(shape.back());
    const uint64_t repeat_from = distinct_rows > 0 ? static_cast<uint64_t>(distinct_rows) * row : ~0ULL;
    auto bytes = std::make_shared<NormalSource>(KeyOf(seed_, name), distribution, elements, repeat_from, row, arena_);
    tensors_.push_back({.name = std::move(name), .type = DType::kBF16, .shape = std::move(shape), .bytes = std::move(bytes)});
  }
  // y = x W^T keeps the size of x.
  void AddLinear(const std::string& name, int64_t out, int64_t in) {
    Add(name, {out, in}, {.sigma = 1 / std::sqrt(static_cast<double>(in))});
  }
  void AddNorm(const std::string& name, int64_t width, double mean = 1) { Add(name, {width}, {.mean = mean, .sigma = 0.1 * mean}); }

  std::vector<SafetensorsEntry> Take() && { return std::move(tensors_); }

 private:
  uint64_t seed_;
  std::shared_ptr<tbb::task_arena> arena_;
  std::vector<SafetensorsEntry> tensors_;
};

void AddModelTensors(TensorList& list, const TextDimensions& d) {
  const int64_t per_layer = d.layers * d.per_layer_width;
  // The model scales table rows by sqrt(width), so rows of length 1 become activations of size 1.
  const auto row_of_length_1 = [](int64_t width) { return Distribution{.sigma = 1 / std::sqrt(static_cast<double>(width))}; };
  list.Add("embed_tokens.weight", {d.vocabulary, d.hidden}, row_of_length_1(d.hidden), std::min(d.vocabulary, d.per_layer_vocabulary));
  list.Add("embed_tokens_per_layer.weight", {d.per_layer_vocabulary, per_layer}, row_of_length_1(d.per_layer_width));
  list.AddLinear("per_layer_model_projection.weight", per_layer, d.hidden);
  list.AddNorm("per_layer_projection_norm.weight", d.per_layer_width);
  for (int64_t i = 0; i + 1 < d.altup_inputs; ++i) {
    list.AddLinear(Format("altup_projections.{}.weight", i), d.hidden, d.hidden);
    list.AddLinear(Format("altup_unembed_projections.{}.weight", i), d.hidden, d.hidden);
  }
  list.AddNorm("norm.weight", d.hidden);
}

void AddAttention(TensorList& list, const std::string& layer, const TextDimensions& d) {
  const std::string attention = layer + "self_attn.";
  list.AddLinear(attention + "q_proj.weight", d.heads * d.head_dim, d.hidden);
  list.AddLinear(attention + "k_proj.weight", d.kv_heads * d.head_dim, d.hidden);
  list.AddLinear(attention + "v_proj.weight", d.kv_heads * d.head_dim, d.hidden);
  list.AddLinear(attention + "o_proj.weight", d.hidden, d.heads * d.head_dim);
  // Scores are q.k without 1/sqrt(head_dim): these gains give them size 1.
  const double gain = std::pow(static_cast<double>(d.head_dim), -0.25);
  list.AddNorm(attention + "q_norm.weight", d.head_dim, gain);
  list.AddNorm(attention + "k_norm.weight", d.head_dim, gain);
}

void AddAltUp(TensorList& list, const std::string& layer, const TextDimensions& d) {
  const std::string altup = layer + "altup.";
  list.AddNorm(altup + "correct_output_scale", d.hidden);
  // The router's input is divided by hidden before tanh; this spread gives tanh arguments of size 0.35, as in trained models.
  list.Add(altup + "modality_router.weight", {d.altup_inputs, d.hidden}, {.sigma = 0.35 * std::sqrt(static_cast<double>(d.hidden))});
  list.AddNorm(altup + "router_norm.weight", d.hidden);
  list.Add(altup + "prediction_coefs.weight", {d.altup_inputs * d.altup_inputs, d.altup_inputs}, {.sigma = 0.1});
  list.Add(altup + "correction_coefs.weight", {d.altup_inputs, d.altup_inputs}, {.sigma = 0.15});
}

void AddLayer(TensorList& list, int64_t index, const TextDimensions& d) {
  const std::string layer = Format("layers.{}.", index);
  const int64_t ffn = d.ffn_widths[static_cast<size_t>(index)];
  for (const std::string_view norm : {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                                      "post_feedforward_layernorm", "post_per_layer_input_norm", "laurel.post_laurel_norm"}) {
    list.AddNorm(Format("{}{}.weight", layer, norm), d.hidden);
  }
  AddAttention(list, layer, d);
  list.AddLinear(layer + "mlp.gate_proj.weight", ffn, d.hidden);
  list.AddLinear(layer + "mlp.up_proj.weight", ffn, d.hidden);
  list.AddLinear(layer + "mlp.down_proj.weight", d.hidden, ffn);
  list.AddLinear(layer + "laurel.linear_left.weight", d.laurel_rank, d.hidden);
  list.AddLinear(layer + "laurel.linear_right.weight", d.hidden, d.laurel_rank);
  list.AddLinear(layer + "per_layer_input_gate.weight", d.per_layer_width, d.hidden);
  list.AddLinear(layer + "per_layer_projection.weight", d.hidden, d.per_layer_width);
  AddAltUp(list, layer, d);
}

// A dimension between 1 and 2^20, enough for every Gemma 3n and too small to overflow a product of two.
Result<int64_t> Dimension(const Json& text, std::string_view field) {
  constexpr int64_t kMax = 1 << 20;
  const auto found = text.find(field);
  const int64_t value = found != text.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
  if (value < 1 || value > kMax) return Fail(ErrorCode::kConfigField, "{}: expected a whole number from 1 to {}", field, kMax);
  return value;
}

Result<std::vector<int64_t>> FfnWidths(const Json& text, int64_t layers) {
  const auto found = text.find("intermediate_size");
  if (found == text.end() || !found->is_array()) {
    return std::vector<int64_t>(static_cast<size_t>(layers), TRY(Dimension(text, "intermediate_size")));
  }
  if (!std::cmp_equal(found->size(), layers)) {
    return Fail(ErrorCode::kConfigField, "intermediate_size: {} entries for {} layers", found->size(), layers);
  }
  std::vector<int64_t> widths;
  for (const Json& width : *found) widths.push_back(TRY(Dimension({{"intermediate_size", width}}, "intermediate_size")));
  return widths;
}

// Cuts the list into runs of at most max_bytes (0: one run); a larger tensor is a run of its own.
std::vector<std::span<const SafetensorsEntry>> Shards(std::span<const SafetensorsEntry> tensors, uint64_t max_bytes) {
  std::vector<std::span<const SafetensorsEntry>> shards;
  size_t begin = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (max_bytes > 0 && i > begin && bytes + tensors[i].bytes->size() > max_bytes) {
      shards.push_back(tensors.subspan(begin, i - begin));
      begin = i;
      bytes = 0;
    }
    bytes += tensors[i].bytes->size();
  }
  shards.push_back(tensors.subspan(begin));
  return shards;
}

}  // namespace

Result<TextDimensions> ReadTextDimensions(const Json& config) {
  if (!config.is_object()) return Fail(ErrorCode::kConfigField, "config.json: expected an object");
  const Json& text = config.contains("text_config") ? config["text_config"] : config;
  TextDimensions d;
  d.layers = TRY(Dimension(text, "num_hidden_layers"));
  d.hidden = TRY(Dimension(text, "hidden_size"));
  d.vocabulary = TRY(Dimension(text, "vocab_size"));
  d.per_layer_vocabulary = TRY(Dimension(text, "vocab_size_per_layer_input"));
  d.per_layer_width = TRY(Dimension(text, "hidden_size_per_layer_input"));
  d.heads = TRY(Dimension(text, "num_attention_heads"));
  d.kv_heads = TRY(Dimension(text, "num_key_value_heads"));
  d.head_dim = TRY(Dimension(text, "head_dim"));
  d.laurel_rank = TRY(Dimension(text, "laurel_rank"));
  d.altup_inputs = TRY(Dimension(text, "altup_num_inputs"));
  d.ffn_widths = TRY(FfnWidths(text, d.layers));
  return d;
}

std::vector<SafetensorsEntry> MakeTextTensors(const TextDimensions& dimensions, uint64_t seed, int threads) {
  TensorList list(seed, threads);
  AddModelTensors(list, dimensions);
  for (int64_t layer = 0; layer < dimensions.layers; ++layer) AddLayer(list, layer, dimensions);
  return std::move(list).Take();
}

Status WriteWeights(const std::filesystem::path& folder, std::span<const SafetensorsEntry> tensors, uint64_t max_shard_bytes,
                    bool replace) {
  const std::map<std::string, std::string> metadata = {{"format", "pt"}};
  const std::vector<std::span<const SafetensorsEntry>> shards = Shards(tensors, max_shard_bytes);
  if (shards.size() == 1) return WriteSafetensors(folder / "model.safetensors", tensors, metadata, replace);
  uint64_t total = 0;
  OrderedJson index = {{"metadata", {{"total_size", 0}}}, {"weight_map", OrderedJson::object()}};
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = Format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    TRY(WriteSafetensors(folder / name, shards[i], metadata, replace));
    for (const SafetensorsEntry& tensor : shards[i]) {
      total += tensor.bytes->size();
      index["weight_map"][tensor.name] = name;
    }
  }
  index["metadata"]["total_size"] = total;
  return WriteWholeFile(folder / "model.safetensors.index.json", AsBytes(index.dump(2) + "\n"), {.replace = replace});
}

}  // namespace taskpress
