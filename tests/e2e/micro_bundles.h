// The micro checkpoint as bundles of every kind, made by the converter and opened by the runtime, as the command line does it.
#ifndef TASKPRESS_TESTS_E2E_MICRO_BUNDLES_H_
#define TASKPRESS_TESTS_E2E_MICRO_BUNDLES_H_

#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "converter/convert.h"
#include "converter/prepare.h"
#include "runtime/bundle_model.h"
#include "tests/reference/goldens.h"

namespace taskpress::testing {

// The value, or a failed test that says why.
template <typename T>
T Must(Result<T> result) {
  if (!result) throw std::runtime_error(CodeName(result.error().code) + " " + result.error().message);
  return *std::move(result);
}
inline void Must(Status status) {
  if (!status) throw std::runtime_error(CodeName(status.error().code) + " " + status.error().message);
}

struct MicroOptions {
  std::string recipe = "f32";
  QuantMethod method = QuantMethod::kAbsmax;
  int64_t context = 320;  // the longest golden, a window of 256 ids, and room
  std::vector<int64_t> prefill = {8, 32, 128};
  WindowForm window = WindowForm::kGather;
  bool score = false;
  int threads = 2;
};

inline PreparedModel PrepareMicro(const MicroOptions& options) {
  PrepareOptions prepare;
  prepare.recipe = Must(RecipeFromName(options.recipe));
  prepare.recipe.method = options.method;
  prepare.score_signature = options.score;
  prepare.model.context = options.context;
  prepare.model.window = options.window;
  prepare.model.prefill_lengths = Must(PrefillLengths(options.prefill, options.context));
  return Must(PrepareModel(oracle::MicroCheckpoint(), prepare));
}

inline std::vector<WrittenBundle> WriteMicro(const MicroOptions& options, const std::vector<std::filesystem::path>& outputs) {
  return Must(WriteBundles(PrepareMicro(options), outputs, {.work = {.threads = options.threads}}));
}

inline Session OpenSession(const std::filesystem::path& bundle, Kernels kernels) {
  BundleModel model = Must(LoadBundleModel(Must(ReadBundle(bundle))));
  return Must(Session::Create(std::move(model.graphs), {.kernels = kernels, .threads = 2}));
}

// Logits after every token, [tokens, vocab].
inline std::vector<float> ScoreAll(Session& session, std::span<const int32_t> tokens) {
  std::vector<float> rows;
  session.Reset();
  Must(session.Score(tokens, [&](int32_t, std::span<const float> logits) -> Status {
    rows.insert(rows.end(), logits.begin(), logits.end());
    return {};
  }));
  return rows;
}

}  // namespace taskpress::testing

#endif  // TASKPRESS_TESTS_E2E_MICRO_BUNDLES_H_
