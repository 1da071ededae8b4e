// A session on a toy model against the same model computed in float64 without caches, chunks or padding.
#include "runtime/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/testing/toy_text_model.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;
using testing::kToyContext;
using testing::kToyVocab;
using testing::MakeToyTextModel;
using testing::ToyTextOptions;
using testing::ToyTextOracle;

// More tokens than one chunk, as many as the context holds.
const std::vector<int32_t> kTokens = {2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9, 0, 4, 5};
static_assert(kToyContext == 16);

Session Make(const ToyTextOptions& options, Kernels kernels = Kernels::kReference, int threads = 1) {
  return Session::Create(MakeToyTextModel(options), {.kernels = kernels, .threads = threads}).value();
}

double LargestDifference(std::span<const float> actual, const std::vector<double>& expected) {
  double largest = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(actual[i]) - expected[i]));
  return largest;
}

// Logits after the last of `tokens`, the first `prefilled` of them through Prefill in one call.
std::vector<float> LogitsAfter(Session& session, std::span<const int32_t> tokens, size_t prefilled) {
  session.Reset();
  EXPECT_TRUE(session.Prefill(tokens.first(prefilled)).has_value());
  std::vector<float> logits;
  for (const int32_t token : tokens.subspan(prefilled)) {
    const std::span<const float> row = session.Decode(token).value();
    logits.assign(row.begin(), row.end());
  }
  return logits;
}

TEST(SessionTest, KnowsItsSizes) {
  Session session = Make({});
  EXPECT_EQ(session.vocab_size(), kToyVocab);
  EXPECT_EQ(session.context_length(), kToyContext);
  EXPECT_EQ(session.position(), 0);
  EXPECT_EQ(session.state_bytes(), 2U * 16 * 6 * sizeof(float));
}

TEST(SessionTest, AnySplitIntoChunksAndStepsGivesTheSameLogits) {
  const std::vector<std::vector<double>> oracle = ToyTextOracle(kTokens);
  for (const Kernels kernels : {Kernels::kReference, Kernels::kXnnpack, Kernels::kFast, Kernels::kInPlace}) {
    // {8}: remainders of three tokens and more are padded, shorter ones decoded; {}: no prefill signature at all.
    for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{4, 8}, {8}, {1, 2, 16}, {5}, {}}) {
      Session session = Make({.prefill_lengths = lengths}, kernels);
      for (size_t count = 1; count <= kTokens.size(); ++count) {
        const std::span<const int32_t> tokens = std::span(kTokens).first(count);
        for (size_t prefilled = 0; prefilled < count; ++prefilled) {
          ASSERT_LT(LargestDifference(LogitsAfter(session, tokens, prefilled), oracle[count - 1]), 1e-5)
              << count << " tokens, " << prefilled << " prefilled";
          ASSERT_EQ(session.position(), static_cast<int32_t>(count));
        }
      }
    }
  }
}

// The last chunk would stick out of the context: DYNAMIC_UPDATE_SLICE would move it back over valid rows.
TEST(SessionTest, PaddingNeverReachesBehindTheContext) {
  const std::vector<std::vector<double>> oracle = ToyTextOracle(kTokens);
  for (size_t first = 1; first < kTokens.size() - 1; ++first) {
    Session session = Make({.prefill_lengths = {8}});
    const std::span<const int32_t> tokens(kTokens);
    ASSERT_TRUE(session.Prefill(tokens.first(first)).has_value());
    ASSERT_TRUE(session.Prefill(tokens.subspan(first, kTokens.size() - 1 - first)).has_value());
    EXPECT_LT(LargestDifference(session.Decode(kTokens.back()).value(), oracle.back()), 1e-5) << first;
  }
}

TEST(SessionTest, ScoreGivesTheLogitsAfterEveryToken) {
  const std::vector<std::vector<double>> oracle = ToyTextOracle(kTokens);
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{}, {4}, {8}, {3, 16}}) {
    Session session = Make({.score_lengths = lengths}, Kernels::kXnnpack);
    int32_t expected_index = 0;
    const Status status = session.Score(kTokens, [&](int32_t index, std::span<const float> logits) -> Status {
      EXPECT_EQ(index, expected_index++);
      EXPECT_LT(LargestDifference(logits, oracle[static_cast<size_t>(index)]), 1e-5) << index;
      return {};
    });
    ASSERT_TRUE(status.has_value());
    EXPECT_EQ(expected_index, 16);
    EXPECT_EQ(session.position(), 16);
  }
}

TEST(SessionTest, ScoreContinuesAContextAndStopsWithTheCallersError) {
  const std::vector<std::vector<double>> oracle = ToyTextOracle(kTokens);
  Session session = Make({.score_lengths = {4}});
  ASSERT_TRUE(session.Prefill(std::span(kTokens).first(5)).has_value());
  const Status status = session.Score(std::span(kTokens).subspan(5), [&](int32_t index, std::span<const float> logits) -> Status {
    EXPECT_LT(LargestDifference(logits, oracle[static_cast<size_t>(index) + 5]), 1e-5);
    if (index == 2) return Fail(ErrorCode::kInterrupted, "enough");
    return {};
  });
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kInterrupted);
}

TEST(SessionTest, ResetForgetsEverything) {
  Session session = Make({});
  const std::vector<float> first = LogitsAfter(session, std::span(kTokens).first(6), 5);
  ASSERT_TRUE(session.Prefill(std::span(kTokens).subspan(6)).has_value());
  EXPECT_EQ(LogitsAfter(session, std::span(kTokens).first(6), 5), first);
}

// Bit for bit: behind the position the caches hold the other continuation, where a fresh session has zeros.
TEST(SessionTest, AfterRewindingOtherTokensGiveWhatAFreshSessionGives) {
  const std::vector<int32_t> other = {10, 3, 3, 6, 0, 1, 9, 2, 5};
  for (const Kernels kernels : {Kernels::kReference, Kernels::kXnnpack, Kernels::kInPlace}) {
    for (const DType weights : {DType::kF32, DType::kI8}) {
      for (size_t shared = 0; shared <= 7; ++shared) {
        const ToyTextOptions options{.weights = weights, .score_lengths = {4}};
        const auto scored = [](Session& session, std::span<const int32_t> tokens) {
          std::vector<float> rows;
          EXPECT_TRUE(session.Score(tokens, [&](int32_t, std::span<const float> row) -> Status {
            rows.insert(rows.end(), row.begin(), row.end());
            return {};
          }));
          return rows;
        };
        Session fresh = Make(options, kernels);
        ASSERT_TRUE(fresh.Prefill(std::span(kTokens).first(shared)));
        const std::vector<float> expected = scored(fresh, other);

        Session session = Make(options, kernels);
        ASSERT_TRUE(session.Prefill(std::span(kTokens).first(shared)));
        ASSERT_TRUE(session.Score(std::span(kTokens).subspan(shared), [](int32_t, std::span<const float>) -> Status { return {}; }));
        session.Rewind(static_cast<int32_t>(shared));
        EXPECT_EQ(session.position(), static_cast<int32_t>(shared));
        EXPECT_EQ(scored(session, other), expected) << shared;
      }
    }
  }
}

TEST(SessionTest, RewindingNeverGoesForwardOrBelowTheStart) {
  Session session = Make({});
  ASSERT_TRUE(session.Prefill(std::span(kTokens).first(5)));
  session.Rewind(9);
  EXPECT_EQ(session.position(), 5);
  session.Rewind(-1);
  EXPECT_EQ(session.position(), 0);
}

TEST(SessionTest, TheNumberOfThreadsDoesNotShow) {
  for (const DType weights : {DType::kF32, DType::kI8, DType::kI4}) {
    for (const Kernels kernels : {Kernels::kXnnpack, Kernels::kFast, Kernels::kInPlace}) {
      Session one = Make({.weights = weights}, kernels, 1);
      Session three = Make({.weights = weights}, kernels, 3);
      EXPECT_EQ(LogitsAfter(one, kTokens, 13), LogitsAfter(three, kTokens, 13));
    }
  }
}

// Integer weights: all kernel sets round activations alike, so only float32 sums in between differ.
TEST(SessionTest, KernelSetsAgreeOnQuantizedWeights) {
  for (const DType weights : {DType::kI8, DType::kI4}) {
    Session reference = Make({.weights = weights});
    const std::vector<float> expected = LogitsAfter(reference, std::span(kTokens).first(3), 0);
    for (const Kernels kernels : {Kernels::kXnnpack, Kernels::kFast, Kernels::kInPlace}) {
      Session fast = Make({.weights = weights}, kernels);
      const std::vector<float> actual = LogitsAfter(fast, std::span(kTokens).first(3), 0);
      EXPECT_LT(LargestDifference(actual, std::vector<double>(expected.begin(), expected.end())), 1e-5);
    }
  }
}

TEST(SessionTest, WeightsInPlaceAreNotPacked) {
  for (const DType weights : {DType::kF32, DType::kI8, DType::kI4}) {
    EXPECT_EQ(Make({.weights = weights}, Kernels::kInPlace).packed_weight_bytes(), 0U);
    EXPECT_GT(Make({.weights = weights}, Kernels::kXnnpack).packed_weight_bytes(), 0U);
  }
}

TEST(SessionTest, WorksWithoutPerLayerEmbeddings) {
  const std::vector<std::vector<double>> oracle = ToyTextOracle(kTokens, /*per_layer_embeddings=*/false);
  Session session = Make({.per_layer_embeddings = false});
  EXPECT_LT(LargestDifference(LogitsAfter(session, kTokens, 9), oracle.back()), 1e-5);
}

TEST(SessionTest, AFullContextIsAnErrorThatLeavesTheContextAlone) {
  const std::vector<std::vector<double>> oracle = ToyTextOracle(kTokens);
  Session session = Make({});
  ASSERT_TRUE(session.Prefill(std::span(kTokens).first(15)).has_value());
  EXPECT_EQ(session.Prefill(std::span(kTokens).first(2)).error().code, ErrorCode::kContextFull);
  EXPECT_EQ(session.position(), 15);
  EXPECT_LT(LargestDifference(session.Decode(kTokens.back()).value(), oracle.back()), 1e-5);
  EXPECT_EQ(session.Decode(1).error().code, ErrorCode::kContextFull);
  EXPECT_EQ(session.Score(std::span(kTokens).first(1), [](int32_t, std::span<const float>) -> Status { return {}; }).error().code,
            ErrorCode::kContextFull);
  EXPECT_TRUE(session.Prefill({}).has_value());
}

TEST(SessionTest, TokensMustBeInTheVocabulary) {
  Session session = Make({});
  for (const int32_t bad : {-1, static_cast<int32_t>(kToyVocab)}) {
    EXPECT_EQ(session.Decode(bad).error().code, ErrorCode::kTokenOutOfRange);
    EXPECT_EQ(session.Prefill(std::vector<int32_t>{1, bad}).error().code, ErrorCode::kTokenOutOfRange);
  }
  EXPECT_EQ(session.position(), 0);
  EXPECT_EQ(session.Score({}, nullptr).error().code, ErrorCode::kEmptyPrompt);
}

// One lie per rule of text_signatures.h and the embedders.
struct Lie {
  const char* name;
  ErrorCode code;
  const char* message;
  std::function<void(TextModel&)> tell;
};

Tensor& TensorNamed(Subgraph& subgraph, std::string_view name) { return *std::ranges::find(subgraph.tensors, name, &Tensor::name); }

TEST(SessionTest, ModelsThatBreakTheContractAreRefused) {
  const auto rename_input = [](TextModel& model, size_t signature, std::string_view from, const char* to) {
    for (auto& [name, id] : model.prefill_decode.signatures[signature].inputs) {
      if (name == from) name = to;
    }
  };
  const std::vector<Lie> lies = {
      {"no decode", ErrorCode::kSignatureMissing, "decode", [](TextModel& m) { m.prefill_decode.signatures[2].key = "other"; }},
      {"no embeddings", ErrorCode::kBundleContract, "no input \"embeddings\"",
       [&](TextModel& m) { rename_input(m, 2, "embeddings", "e"); }},
      {"no mask", ErrorCode::kBundleContract, "no input \"mask\"", [&](TextModel& m) { rename_input(m, 0, "mask", "m"); }},
      {"a state without output", ErrorCode::kBundleContract, "no output of the same name",
       [&](TextModel& m) { rename_input(m, 2, "kv_cache_k_0", "kv_cache_k_1"); }},
      {"a state that decode does not have", ErrorCode::kBundleContract, "not one of decode's",
       [&](TextModel& m) {
         rename_input(m, 0, "kv_cache_k_0", "kv_cache_k_1");
         m.prefill_decode.signatures[0].outputs[0].first = "kv_cache_k_1";
       }},
      {"a mask of another context", ErrorCode::kBundleContract, "\"mask\"",
       [](TextModel& m) { TensorNamed(m.prefill_decode.subgraphs[0], "mask").shape = {1, 1, 4, 15}; }},
      {"positions that are floats", ErrorCode::kBundleContract, "expected i32",
       [](TextModel& m) { TensorNamed(m.prefill_decode.subgraphs[1], "input_pos").type = DType::kF32; }},
      {"no logits", ErrorCode::kBundleContract, "\"logits\"",
       [](TextModel& m) { m.prefill_decode.signatures[2].outputs[2].first = "scores"; }},
      {"no per-layer embedder", ErrorCode::kBundleSectionMissing, "per-layer", [](TextModel& m) { m.per_layer_embedder.reset(); }},
      {"an embedder of another width", ErrorCode::kBundleContract, "expected one i32 and 6 f32",
       [](TextModel& m) { m.embedder = *m.per_layer_embedder; }},
      {"an embedder without signature", ErrorCode::kSignatureMissing, "no signature", [](TextModel& m) { m.embedder.signatures.clear(); }},
      {"an index outside the graph", ErrorCode::kTfliteReference, "",
       [](TextModel& m) { m.prefill_decode.subgraphs[0].ops[0].inputs[0] = 999; }},
  };
  for (const Lie& lie : lies) {
    TextModel model = MakeToyTextModel({});
    lie.tell(model);
    const auto session = Session::Create(std::move(model), {.kernels = Kernels::kReference, .threads = 1});
    ASSERT_FALSE(session.has_value()) << lie.name;
    EXPECT_EQ(session.error().code, lie.code) << lie.name << ": " << session.error().message;
    EXPECT_THAT(session.error().message, HasSubstr(lie.message)) << lie.name;
  }
}

TEST(SessionTest, OtherSpellingsOfMaskAndPositionsAreUnderstood) {
  TextModel model = MakeToyTextModel({});
  for (Signature& signature : model.prefill_decode.signatures) {
    for (auto& [name, id] : signature.inputs) {
      if (name == "mask") name = "attn_mask";
      if (name == "input_pos") name = "positions";
    }
  }
  Session session = Session::Create(std::move(model), {.kernels = Kernels::kReference, .threads = 1}).value();
  EXPECT_LT(LargestDifference(LogitsAfter(session, kTokens, 9), ToyTextOracle(kTokens).back()), 1e-5);
}

}  // namespace
}  // namespace taskpress
