// A text model of one attention layer, small enough to compute by hand: embedders, prefill_<T>, decode, score_<T>.
#ifndef TASKPRESS_TESTS_TESTING_TOY_TEXT_MODEL_H_
#define TASKPRESS_TESTS_TESTING_TOY_TEXT_MODEL_H_

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/session.h"

namespace taskpress::testing {

struct ToyTextOptions {
  DType weights = DType::kF32;
  std::vector<int64_t> prefill_lengths = {4, 8};
  std::vector<int64_t> score_lengths;
  bool per_layer_embeddings = true;
};

inline constexpr int64_t kToyContext = 16;
inline constexpr int64_t kToyVocab = 11;

TextModel MakeToyTextModel(const ToyTextOptions& options);

// The f32 model's logits after every token, in float64 and over whole sequences: no cache, no chunks. [tokens][vocab]
std::vector<std::vector<double>> ToyTextOracle(std::span<const int32_t> tokens, bool per_layer_embeddings = true);

}  // namespace taskpress::testing

#endif  // TASKPRESS_TESTS_TESTING_TOY_TEXT_MODEL_H_
