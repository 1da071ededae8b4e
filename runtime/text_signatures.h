// The signatures of a text model's main member and the tensors behind their names: prefill_<T>, decode, score_<T>, and calibrate_<T> of
// models that are run to be calibrated.
//
// Shapes, for T tokens and a context of C: embeddings f32 [1,T,H], per_layer_embeddings f32 [1,T,L,P] (optional), input_pos i32 [T], mask
// f32 [1,1,T,C], logits f32 [1,T,V] (decode: T = 1; score_<T>: one row per token; calibrate_<T> has hidden f32 [1,T,H] instead). Every
// other input is a state, an opaque tensor that the
// output of the same name replaces (the KV caches kv_cache_k_i, kv_cache_v_i).
#ifndef TASKPRESS_RUNTIME_TEXT_SIGNATURES_H_
#define TASKPRESS_RUNTIME_TEXT_SIGNATURES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

struct TextSignature {
  std::string key;
  int32_t subgraph = 0;
  int64_t tokens = 0;  // T
  TensorId embeddings = kNone;
  TensorId per_layer_embeddings = kNone;
  TensorId positions = kNone;
  TensorId mask = kNone;
  TensorId logits = kNone;
  TensorId hidden = kNone;  // of calibrate_<T>
  struct State {
    size_t index;  // into TextSignatures::states
    TensorId input;
    TensorId output;
  };
  std::vector<State> states;
};

struct StateTensor {
  std::string name;
  DType type = DType::kF32;
  Shape shape;
};

struct TextSignatures {
  TextSignature decode;
  std::vector<TextSignature> prefill;  // ascending T
  std::vector<TextSignature> score;    // ascending T
  std::vector<TextSignature> calibrate;
  std::vector<StateTensor> states;
  int64_t context_length = 0;  // C
  int64_t hidden_size = 0;     // H
  int64_t per_layer_size = 0;  // L * P, 0 without per-layer embeddings
  int64_t vocab_size = 0;      // V
};

// kSignatureMissing without `decode`; kBundleContract when names, types or shapes are not as above or differ between signatures.
Result<TextSignatures> FindTextSignatures(const Graph& graph);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_TEXT_SIGNATURES_H_
