#include <algorithm>
#include <iostream>
#include <memory>

#include "tools/command.h"
#include "tools/divergence_run.h"
#include "tools/model_source.h"

namespace taskpress {
namespace {

struct CompareArguments {
  std::string a;
  std::string b;
  std::string text_file;
  std::string tokens;
  int64_t window = 256;
  std::string size_b;
  bool json = false;
  RunFlags flags;
};

Result<ExitStatus> Compare(const CompareArguments& arguments) {
  if (arguments.tokens.empty() == arguments.text_file.empty()) return Fail(ErrorCode::kUsage, "give either --text or --tokens");
  if (arguments.window < 2) return Fail(ErrorCode::kUsage, "--window {}: at least 2", arguments.window);
  const std::vector<int32_t> given = TRY(ParseTokens(arguments.tokens));
  const int64_t context = std::max<int64_t>(arguments.window, static_cast<int64_t>(given.size()));
  OpenedModel a = TRY(OpenModel(arguments.a, arguments.flags, context));
  RunFlags flags_b = arguments.flags;
  flags_b.size = arguments.size_b;
  OpenedModel b = TRY(OpenModel(arguments.b, flags_b, context));
  const int64_t length = std::min<int64_t>({arguments.window, a.session.context_length(), b.session.context_length()});
  std::vector<std::vector<int32_t>> windows{given};
  if (given.empty()) windows = TRY(TextWindows(a, TRY(ReadTextFile(arguments.text_file)), length));
  const DivergenceSummary summary = TRY(MeasureDivergence({arguments.a, a}, {arguments.b, b}, windows));
  if (arguments.json) {
    PrintJson("compare", {{"kl_mean", summary.kl_mean},
                          {"kl_p99", summary.kl_p99},
                          {"top1_agreement", summary.top1_agreement},
                          {"perplexity_a", summary.perplexity_a},
                          {"perplexity_b", summary.perplexity_b},
                          {"perplexity_ratio", summary.perplexity_a / summary.perplexity_b},
                          {"tokens", summary.positions},
                          {"max_abs_difference", summary.max_abs_difference}});
  } else {
    std::cout << Format(
        "a {}\nb {}\npositions {}\nKL(b || a) mean {:.6f} nats, 99th percentile {:.6f}\ntop-1 agreement {:.4f}\n"
        "perplexity a {:.4f}, b {:.4f}, ratio {:.5f}\n",
        arguments.a, arguments.b, summary.positions, summary.kl_mean, summary.kl_p99, summary.top1_agreement, summary.perplexity_a,
        summary.perplexity_b, summary.perplexity_a / summary.perplexity_b);
  }
  return ExitStatus::kOk;
}

}  // namespace

Verb AddCompare(CLI::App& app) {
  CLI::App* verb =
      app.add_subcommand("compare", "How far model A is from model B (the reference): KL divergence, top-1 agreement, perplexity");
  const auto arguments = std::make_shared<CompareArguments>();
  verb->add_option("a", arguments->a, "the model in question: a bundle or a checkpoint")->required();
  verb->add_option("b", arguments->b, "the reference: a bundle or a checkpoint (run in float)")->required();
  verb->add_option("--text", arguments->text_file, "a text file");
  verb->add_option("--tokens", arguments->tokens, "ids instead of a text, 2,5,9 or @file.json");
  verb->add_option("--window", arguments->window, "tokens per window, each starts with the start token")->capture_default_str();
  verb->add_option("--size-b", arguments->size_b, "the same as --size, for B; --size is for A");
  verb->add_flag("--json", arguments->json, "one JSON document");
  AddRunFlags(*verb, arguments->flags);
  verb->footer("Example:\n  taskpress compare gemma-int4.task gemma-3n-E2B-it --text sample.txt");
  return {verb, [arguments] { return Compare(*arguments); }};
}

}  // namespace taskpress
