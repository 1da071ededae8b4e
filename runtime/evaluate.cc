#include "runtime/evaluate.h"

#include <algorithm>
#include <cmath>

#include "runtime/chat.h"
#include "runtime/log_probability.h"

namespace taskpress {
namespace {

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// The first of the largest.
template <typename Score>
size_t Best(size_t count, const Score& score) {
  size_t best = 0;
  for (size_t i = 1; i < count; ++i) {
    if (score(i) > score(best)) best = i;
  }
  return best;
}

// How many tokens all of them begin with.
size_t SharedTokens(std::span<const std::vector<int32_t>> all) {
  size_t shared = all.front().size();
  for (const std::vector<int32_t>& tokens : all) {
    const auto differ = std::ranges::mismatch(all.front(), tokens);
    shared = std::min(shared, static_cast<size_t>(differ.in1 - all.front().begin()));
  }
  return shared;
}

// Where the answer ends: at the first of the stop texts behind something that is not white space.
size_t EndOfAnswer(std::string_view text, std::span<const std::string> stops) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  size_t end = std::string_view::npos;
  if (begin == std::string_view::npos) return end;
  for (const std::string& stop : stops) end = std::min(end, text.find(stop, begin));
  return end;
}

}  // namespace

Result<std::vector<int32_t>> Evaluator::Encode(std::string_view text) const {
  std::vector<int32_t> tokens;
  if (metadata_.start_token) tokens.push_back(metadata_.start_token->id);
  const std::vector<int32_t> encoded = TRY(tokenizer_.Encode(text));
  tokens.insert(tokens.end(), encoded.begin(), encoded.end());
  return tokens;
}

// The context holds the first `shared` tokens but the last of them. Log-likelihood of the tokens from `first` on.
Result<double> Evaluator::Continue(std::span<const int32_t> tokens, size_t shared, size_t first) {
  const size_t begin = shared - 1;
  session_.Rewind(static_cast<int32_t>(begin));
  double sum = 0;
  TRY(session_.Score(tokens.subspan(begin, tokens.size() - 1 - begin), [&](int32_t index, std::span<const float> logits) -> Status {
    if (options_.stop != nullptr && *options_.stop) return Fail(ErrorCode::kInterrupted, "while answering");
    const size_t next = begin + static_cast<size_t>(index) + 1;
    if (next >= first) sum += LogProbability(logits, tokens[next]);
    return {};
  }));
  if (!std::isfinite(sum)) return Fail(ErrorCode::kNotFinite, "the log-likelihood of a choice is {}", sum);
  return sum;
}

// A choice is tokenized together with its context, since tokens may grow across the border; it has the tokens behind as many as the context
// has alone. What all choices begin with is read once.
Result<std::vector<double>> Evaluator::LogLikelihoods(const EvalItem& item) {
  const std::string context = options_.chat ? ChatTurnText(metadata_, item.context) : item.context;
  const size_t first = TRY(Encode(context)).size();
  std::vector<std::vector<int32_t>> all;
  for (const std::string& choice : item.choices) {
    std::vector<int32_t> tokens = TRY(Encode(context + choice));
    if (tokens.size() <= first) return Fail(ErrorCode::kEvalTask, "the choice \"{}\" adds no token to the text before it", choice);
    if (std::cmp_greater(tokens.size() - 1, session_.context_length())) {
      return Fail(ErrorCode::kContextFull, "context and choice have {} tokens, the model holds {} and predicts one more", tokens.size(),
                  session_.context_length());
    }
    all.push_back(std::move(tokens));
  }
  // At least one token is left to be scored, also of a choice that is the beginning of another.
  size_t shared = std::min(SharedTokens(all), first);
  for (const std::vector<int32_t>& tokens : all) shared = std::min(shared, tokens.size() - 1);
  if (shared == 0) return Fail(ErrorCode::kEmptyPrompt, "there is no token in front of the choices");
  session_.Reset();
  TRY(session_.Prefill(std::span(all.front()).first(shared - 1)));
  std::vector<double> log_likelihoods;
  for (const std::vector<int32_t>& tokens : all) log_likelihoods.push_back(TRY(Continue(tokens, shared, first)));
  return log_likelihoods;
}

Result<std::string> Evaluator::Generate(const EvalItem& item) {
  const std::vector<int32_t> prompt = TRY(Encode(options_.chat ? ChatTurnText(metadata_, item.context) : item.context));
  if (prompt.empty()) return Fail(ErrorCode::kEmptyPrompt, "the prompt has no tokens");
  const int64_t most = item.max_tokens > 0 ? item.max_tokens : options_.max_new_tokens;
  session_.Reset();
  TRY(session_.Prefill(std::span(prompt).first(prompt.size() - 1)));
  StreamingDecoder decoder(tokenizer_);
  std::string text;
  size_t end = std::string::npos;
  int32_t last = prompt.back();
  for (int64_t made = 0; made < most && end == std::string::npos; ++made) {
    if (options_.stop != nullptr && *options_.stop) return Fail(ErrorCode::kInterrupted, "while answering");
    if (session_.position() == session_.context_length()) break;
    const std::span<const float> logits = TRY(session_.Decode(last));
    if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) {
      return Fail(ErrorCode::kNotFinite, "among the logits of token {} of the answer", made + 1);
    }
    last = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
    if (std::ranges::contains(metadata_.stop_tokens, last, &TokenText::id)) break;
    text += TRY(decoder.Push(last));
    end = EndOfAnswer(text, item.stop);
  }
  text += decoder.Finish();
  return std::string(Trimmed(std::string_view(text).substr(0, end)));
}

Result<EvalAnswer> Evaluator::Answer(const EvalItem& item) {
  EvalAnswer answer{.line = item.line, .form = item.form};
  const std::string where = Format("line {}", item.line);
  if (item.form == EvalForm::kExact) {
    Result<std::string> text = Generate(item);
    if (!text) return std::unexpected(WithContext(std::move(text).error(), where));
    answer.text = *std::move(text);
    answer.right = answer.text == Trimmed(item.expected);
    answer.right_norm = answer.right;
    return answer;
  }
  Result<std::vector<double>> sums = LogLikelihoods(item);
  if (!sums) return std::unexpected(WithContext(std::move(sums).error(), where));
  answer.log_likelihoods = *std::move(sums);
  const std::vector<double>& log = answer.log_likelihoods;
  answer.right = Best(log.size(), [&](size_t i) { return log[i]; }) == item.label;
  answer.right_norm = Best(log.size(), [&](size_t i) { return log[i] / static_cast<double>(item.choices[i].size()); }) == item.label;
  return answer;
}

}  // namespace taskpress
