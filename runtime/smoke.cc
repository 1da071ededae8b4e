#include "runtime/smoke.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace taskpress {
namespace {

constexpr int32_t kPad = 0;
constexpr int kPromptTokens = 4;
constexpr int kReplyTokens = 2;
// Rows of a call do not influence each other, so a prompt read in one call and token by token gives the same sums; only their order may
// differ.
constexpr float kRelativeTolerance = 1e-3F;

struct Summary {
  std::vector<float> logits;
  int32_t best = 0;
  float range = 0;
};

Result<Summary> Summarize(std::span<const float> logits) {
  Summary summary{.logits = {logits.begin(), logits.end()}};
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) return Fail(ErrorCode::kNotFinite, "smoke run: the logit of token {} is {}", i, logits[i]);
  }
  const auto [low, high] = std::ranges::minmax_element(logits);
  summary.best = static_cast<int32_t>(high - logits.begin());
  summary.range = *high - *low;
  if (!(summary.range > 0)) return Fail(ErrorCode::kSmokeFailed, "smoke run: all {} logits are equal", logits.size());
  return summary;
}

// The start token and ids spread over the vocabulary: any text will do.
std::vector<int32_t> Prompt(const BundleMetadata& metadata, int32_t vocab_size, int32_t context) {
  std::vector<int32_t> prompt;
  if (metadata.start_token) prompt.push_back(metadata.start_token->id);
  const int32_t length = std::min(kPromptTokens, context - kReplyTokens);
  while (static_cast<int32_t>(prompt.size()) < length) {
    prompt.push_back(static_cast<int32_t>((static_cast<int64_t>(prompt.size()) * 2654435761LL) % vocab_size));
  }
  return prompt;
}

}  // namespace

Status SmokeRun(TextModel graphs, const BundleMetadata& metadata, int threads) {
  Session session = TRY(Session::Create(std::move(graphs), {.kernels = Kernels::kInPlace, .threads = threads}));
  if (session.context_length() <= kReplyTokens) {
    return Fail(ErrorCode::kSmokeFailed, "smoke run: a context of {} tokens is too short to say anything", session.context_length());
  }
  const std::vector<int32_t> prompt = Prompt(metadata, session.vocab_size(), session.context_length());
  TRY(session.Prefill(std::span(prompt).first(prompt.size() - 1)));
  const Summary at_once = TRY(Summarize(TRY(session.Decode(prompt.back()))));
  // A model may begin with padding, but not go on with it.
  int32_t said = at_once.best;
  for (int i = 1; i < kReplyTokens && said == kPad; ++i) said = TRY(Summarize(TRY(session.Decode(said)))).best;
  if (said == kPad) return Fail(ErrorCode::kSmokeFailed, "smoke run: the model says nothing but <pad>");

  session.Reset();
  Summary one_by_one;
  for (const int32_t token : prompt) one_by_one = TRY(Summarize(TRY(session.Decode(token))));
  for (size_t i = 0; i < one_by_one.logits.size(); ++i) {
    const float difference = std::abs(one_by_one.logits[i] - at_once.logits[i]);
    if (difference > kRelativeTolerance * at_once.range) {
      return Fail(ErrorCode::kSmokeFailed, "smoke run: prefill and decode disagree, token {} has logit {} and {}", i, at_once.logits[i],
                  one_by_one.logits[i]);
    }
  }
  return {};
}

}  // namespace taskpress
