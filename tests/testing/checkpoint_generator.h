// Seeded Gemma 3n text checkpoints of any size, for tests and measurements where real weights are too large or not at hand.
//
// A value depends on the seed, the tensor's name and the element's index alone, so any number of threads gives the same bytes, and a tensor
// of gigabytes is computed while it is written. Values are normal, with spreads chosen so that activations stay within a few units through
// all layers and every branch (router, LAuReL, per-layer embeddings, attention) contributes.
#ifndef TASKPRESS_TESTS_TESTING_CHECKPOINT_GENERATOR_H_
#define TASKPRESS_TESTS_TESTING_CHECKPOINT_GENERATOR_H_

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/json.h"
#include "schema/safetensors.h"

namespace taskpress {

// What the shapes of a Gemma 3n text model follow from.
struct TextDimensions {
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t vocabulary = 0;            // rows of embed_tokens; those from per_layer_vocabulary on are copies of row 0
  int64_t per_layer_vocabulary = 0;  // rows of embed_tokens_per_layer = pieces of the tokenizer
  int64_t per_layer_width = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t laurel_rank = 0;
  int64_t altup_inputs = 0;
  std::vector<int64_t> ffn_widths;  // [layers]
};

// From a config.json, with or without a text_config inside. intermediate_size may be a number or a list.
Result<TextDimensions> ReadTextDimensions(const Json& config);

// The config.json of "micro" (the shape of tests/data/micro-e4b), "e2b" or "e4b", without vision and audio.
Result<OrderedJson> PresetConfig(std::string_view preset);

// All tensors of the text model, bf16, named model.language_model.*, computed on demand by at most `threads` threads.
std::vector<SafetensorsEntry> MakeTextTensors(const TextDimensions& dimensions, uint64_t seed, int threads);

// As Hugging Face saves: shards of at most max_shard_bytes of tensors (a larger tensor gets its own) and their index, or one
// model.safetensors when that suffices or max_shard_bytes is 0.
Status WriteWeights(const std::filesystem::path& folder, std::span<const SafetensorsEntry> tensors, uint64_t max_shard_bytes, bool replace);

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_TESTING_CHECKPOINT_GENERATOR_H_
