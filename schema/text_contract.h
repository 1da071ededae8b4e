// What LiteRT-LM expects of the three text members of a bundle: signature keys, tensor names, types and shapes. FORMATS.md, "Text members".
#ifndef TASKPRESS_SCHEMA_TEXT_CONTRACT_H_
#define TASKPRESS_SCHEMA_TEXT_CONTRACT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

// The sizes that the members agree on.
struct TextContract {
  int64_t context = 0;  // slots of the KV cache: the last dimension of the mask
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;  // rows of per-layer input, 0 without a per-layer embedder
  int64_t per_layer_size = 0;
  int64_t num_caches = 0;                // pairs of kv_cache_k_<i>, kv_cache_v_<i>
  std::vector<int64_t> prefill_lengths;  // ascending
  std::optional<int64_t> score_length;
};

// kBundleContract with signature, tensor, expected and found. `per_layer_embedder` may be null for families without one.
Result<TextContract> CheckTextContract(const Graph& embedder, const Graph* per_layer_embedder, const Graph& prefill_decode);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_TEXT_CONTRACT_H_
