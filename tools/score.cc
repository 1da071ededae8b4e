#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <memory>

#include "runtime/log_probability.h"
#include "schema/safetensors.h"
#include "tools/command.h"
#include "tools/model_source.h"

namespace taskpress {
namespace {

struct ScoreArguments {
  std::string file;
  std::string tokens;
  std::string text_file;
  std::string logits_file;
  int64_t window = 0;
  int64_t checkpoint_context = 4096;
  bool force = false;
  bool json = false;
  RunFlags flags;
};

// Log-probabilities of every token given those before it in its window; the first of a window has none.
struct Scores {
  std::vector<int32_t> tokens;
  std::vector<std::optional<double>> log_probabilities;
  std::vector<float> logits;  // [tokens, vocab], only when asked for
  double nll = 0;
  int64_t predicted = 0;
};

Status ScoreWindow(OpenedModel& model, std::span<const int32_t> tokens, bool keep_logits, Scores& scores) {
  model.session.Reset();
  scores.tokens.insert(scores.tokens.end(), tokens.begin(), tokens.end());
  scores.log_probabilities.emplace_back(std::nullopt);
  return model.session.Score(tokens, [&](int32_t index, std::span<const float> logits) -> Status {
    if (StopRequested()) return Fail(ErrorCode::kInterrupted, "after {} tokens", scores.log_probabilities.size());
    if (keep_logits) scores.logits.insert(scores.logits.end(), logits.begin(), logits.end());
    const size_t next = static_cast<size_t>(index) + 1;
    if (next == tokens.size()) return {};
    const double log_probability = LogProbability(logits, tokens[next]);
    if (!std::isfinite(log_probability))
      return Fail(ErrorCode::kNotFinite, "log-probability of token {} at position {}", tokens[next], next);
    scores.log_probabilities.emplace_back(log_probability);
    scores.nll -= log_probability;
    ++scores.predicted;
    return {};
  });
}

Result<std::vector<std::vector<int32_t>>> Windows(const ScoreArguments& arguments, const OpenedModel& model) {
  if (!arguments.tokens.empty()) return std::vector<std::vector<int32_t>>{TRY(ParseTokens(arguments.tokens))};
  const int64_t context = model.session.context_length();
  const int64_t length = arguments.window > 0 ? std::min(arguments.window, context) : context;
  return TextWindows(model, TRY(ReadTextFile(arguments.text_file)), length);
}

Status WriteLogits(const ScoreArguments& arguments, const Scores& scores, int32_t vocab_size) {
  const SafetensorsEntry entry{.name = "logits",
                               .type = DType::kF32,
                               .shape = {static_cast<int64_t>(scores.logits.size()) / vocab_size, vocab_size},
                               .bytes = MakeMemorySource(std::span(scores.logits))};
  return WriteSafetensors(arguments.logits_file, std::span(&entry, 1), {}, arguments.force);
}

Result<ExitStatus> Score(const ScoreArguments& arguments) {
  if (arguments.tokens.empty() == arguments.text_file.empty()) return Fail(ErrorCode::kUsage, "give either --tokens or --text");
  if (!arguments.logits_file.empty() && !arguments.force) {  // before the work, not after it
    std::error_code ignored;
    if (std::filesystem::exists(arguments.logits_file, ignored)) {
      return Fail(ErrorCode::kOutputExists, "{}: exists already; pass --force to replace it", arguments.logits_file);
    }
  }
  OpenedModel model = TRY(OpenModel(arguments.file, arguments.flags, arguments.checkpoint_context));
  Scores scores;
  for (const std::vector<int32_t>& window : TRY(Windows(arguments, model))) {
    TRY(ScoreWindow(model, window, !arguments.logits_file.empty(), scores));
  }
  if (!arguments.logits_file.empty()) TRY(WriteLogits(arguments, scores, model.session.vocab_size()));
  const double mean = scores.predicted > 0 ? scores.nll / static_cast<double>(scores.predicted) : 0.0;
  if (arguments.json) {
    OrderedJson log_probabilities = OrderedJson::array();
    for (const std::optional<double>& value : scores.log_probabilities)
      log_probabilities.push_back(value ? OrderedJson(*value) : OrderedJson());
    PrintJson("score", {{"tokens", scores.tokens},
                        {"logprobs", log_probabilities},
                        {"nll", scores.nll},
                        {"nll_per_token", mean},
                        {"perplexity", std::exp(mean)},
                        {"predicted_tokens", scores.predicted}});
  } else {
    std::cout << Format("tokens {}  predicted {}  nll {:.4f}  per token {:.6f}  perplexity {:.4f}\n", scores.tokens.size(),
                        scores.predicted, scores.nll, mean, std::exp(mean));
  }
  return ExitStatus::kOk;
}

}  // namespace

Verb AddScore(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("score", "Log-probability of every token, and perplexity");
  const auto arguments = std::make_shared<ScoreArguments>();
  verb->add_option("file", arguments->file, "a bundle, or a checkpoint (scored in float)")->required();
  verb->add_option("--tokens", arguments->tokens, "ids, 2,5,9 or @file.json; taken as they are");
  verb->add_option("--text", arguments->text_file, "a text file; cut into windows that each start with the start token");
  verb->add_option("--window", arguments->window, "tokens per window; default: the context length");
  verb->add_option("--logits", arguments->logits_file, "write F32 \"logits\" [tokens, vocab] to this safetensors file");
  verb->add_option("--context", arguments->checkpoint_context, "KV cache length when FILE is a checkpoint")->capture_default_str();
  verb->add_flag("--force", arguments->force, "replace an existing --logits file");
  verb->add_flag("--json", arguments->json, "one JSON document");
  AddRunFlags(*verb, arguments->flags);
  verb->footer(
      "Examples:\n  taskpress score gemma.task --text sample.txt\n  taskpress score gemma.task --tokens 2,818,5279 --logits "
      "out.safetensors --json");
  return {verb, [arguments] { return Score(*arguments); }};
}

}  // namespace taskpress
