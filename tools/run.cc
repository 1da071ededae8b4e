#include <chrono>
#include <iostream>
#include <memory>

#include "runtime/chat.h"
#include "runtime/sampler.h"
#include "runtime/step_profile.h"
#include "schema/base/output_file.h"
#include "tools/command.h"
#include "tools/model_source.h"

namespace taskpress {
namespace {

using std::chrono::steady_clock;

struct RunArguments {
  std::string file;
  std::string prompt;
  std::string tokens;
  bool chat = false;
  int max_new_tokens = 128;
  double temperature = 0.0;
  int top_k = 0;
  double top_p = 1.0;
  uint64_t seed = 0;
  int64_t checkpoint_context = 4096;
  bool json = false;
  std::string profile_file;
  RunFlags flags;
};

struct Reply {
  std::vector<int32_t> tokens;
  std::string text;
  std::string stop_reason = "length";
  size_t prompt_tokens = 0;
  double prefill_seconds = 0;
  double first_token_seconds = 0;
  double decode_seconds = 0;  // after the first token
};

double Seconds(steady_clock::time_point since) { return std::chrono::duration<double>(steady_clock::now() - since).count(); }

Result<std::vector<int32_t>> PromptTokens(const RunArguments& arguments, const OpenedModel& model) {
  if (!arguments.tokens.empty()) return ParseTokens(arguments.tokens);
  if (arguments.chat) return EncodeChatTurn(model.tokenizer, model.metadata, arguments.prompt);
  std::vector<int32_t> ids;
  if (model.metadata.start_token) ids.push_back(model.metadata.start_token->id);
  const std::vector<int32_t> text = TRY(model.tokenizer.Encode(arguments.prompt));
  ids.insert(ids.end(), text.begin(), text.end());
  return ids;
}

bool IsStop(const BundleMetadata& metadata, int32_t token) {
  for (const TokenText& stop : metadata.stop_tokens) {
    if (stop.id == token) return true;
  }
  return false;
}

// Ids in, ids out: a prompt of ids is continued past stop tokens, a text is not.
Result<Reply> Generate(const RunArguments& arguments, OpenedModel& model, std::span<const int32_t> prompt) {
  Reply reply{.prompt_tokens = prompt.size()};
  if (prompt.empty()) return Fail(ErrorCode::kEmptyPrompt, "the prompt has no tokens");
  Sampler sampler({.temperature = arguments.temperature, .top_k = arguments.top_k, .top_p = arguments.top_p, .seed = arguments.seed});
  StreamingDecoder decoder(model.tokenizer);
  const bool stops = arguments.tokens.empty();
  const auto start = steady_clock::now();
  TRY(model.session.Prefill(prompt.first(prompt.size() - 1)));
  reply.prefill_seconds = Seconds(start);
  int32_t last = prompt.back();
  auto first_token = start;
  while (static_cast<int>(reply.tokens.size()) < arguments.max_new_tokens) {
    if (StopRequested()) return Fail(ErrorCode::kInterrupted, "after {} tokens", reply.tokens.size());
    if (model.session.position() == model.session.context_length()) {
      reply.stop_reason = "context_full";
      break;
    }
    const int32_t next = TRY(sampler.Sample(TRY(model.session.Decode(last))));
    if (reply.first_token_seconds == 0) {
      reply.first_token_seconds = Seconds(start);
      first_token = steady_clock::now();
    }
    if (stops && IsStop(model.metadata, next)) {
      reply.stop_reason = "stop_token";
      break;
    }
    reply.tokens.push_back(next);
    const std::string text = TRY(decoder.Push(next));
    reply.text += text;
    if (!arguments.json) std::cout << text << std::flush;
    last = next;
  }
  reply.decode_seconds = Seconds(first_token);
  const std::string rest = decoder.Finish();
  reply.text += rest;
  if (!arguments.json) std::cout << rest << "\n";
  return reply;
}

double Rate(double count, double seconds) { return seconds > 0 ? count / seconds : 0.0; }

Result<ExitStatus> Run(const RunArguments& arguments) {
  if (arguments.prompt.empty() == arguments.tokens.empty()) return Fail(ErrorCode::kUsage, "give either --prompt or --tokens");
  if (arguments.max_new_tokens < 1) return Fail(ErrorCode::kUsage, "-n {}: at least 1", arguments.max_new_tokens);
  StepProfile profile;
  const bool profiled = !arguments.profile_file.empty();
  OpenedModel model =
      TRY(OpenModel(arguments.file, arguments.flags, arguments.checkpoint_context, {.profile = profiled ? &profile : nullptr}));
  profile.Clear();  // loading reads a row of each embedding table
  const std::vector<int32_t> prompt = TRY(PromptTokens(arguments, model));
  const Reply reply = TRY(Generate(arguments, model, prompt));
  if (profiled) {
    TRY(WriteWholeFile(arguments.profile_file, AsBytes(profile.ChromeTrace()), {.replace = true}));
    std::cerr << profile.Table();
  }
  const auto prefilled = static_cast<double>(reply.prompt_tokens - 1);
  const auto decoded = static_cast<double>(reply.tokens.empty() ? 0 : reply.tokens.size() - 1);
  if (arguments.json) {
    PrintJson("run", {{"tokens", reply.tokens},
                      {"text", reply.text},
                      {"stop_reason", reply.stop_reason},
                      {"prompt_tokens", prompt},
                      {"prefill_tokens", reply.prompt_tokens},
                      {"decode_tokens", reply.tokens.size()},
                      {"prefill_tokens_per_s", Rate(prefilled, reply.prefill_seconds)},
                      {"decode_tokens_per_s", Rate(decoded, reply.decode_seconds)},
                      {"time_to_first_token_s", reply.first_token_seconds},
                      {"load_s", model.load_seconds},
                      {"weight_cache", NameOf(model.session.packed_weights().state)}});
  } else {
    std::cerr << Format("[{} prompt tokens, {:.1f} tok/s; {} generated, {:.1f} tok/s; first token after {:.3f} s; {}]\n",
                        reply.prompt_tokens, Rate(prefilled, reply.prefill_seconds), reply.tokens.size(),
                        Rate(decoded, reply.decode_seconds), reply.first_token_seconds, reply.stop_reason);
  }
  return ExitStatus::kOk;
}

}  // namespace

Verb AddRun(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("run", "Continue a text, or answer a chat turn");
  const auto arguments = std::make_shared<RunArguments>();
  verb->add_option("file", arguments->file, "a .task or .litertlm bundle, or a checkpoint (run in float)")->required();
  verb->add_option("-p,--prompt", arguments->prompt, "text to continue; the start token is put in front");
  verb->add_option("--tokens", arguments->tokens, "prompt as ids, 2,5,9 or @file.json; taken as it is and continued past stop tokens");
  verb->add_flag("--chat", arguments->chat, "the prompt is a user's turn in the bundle's chat template");
  verb->add_option("-n,--max-new-tokens", arguments->max_new_tokens, "tokens to generate at most")->capture_default_str();
  verb->add_option("--temperature", arguments->temperature, "0: always the most likely token")->capture_default_str();
  verb->add_option("--top-k", arguments->top_k, "sample from the k most likely tokens; 0: all")->capture_default_str();
  verb->add_option("--top-p", arguments->top_p, "sample from the most likely tokens that add up to p")->capture_default_str();
  verb->add_option("--seed", arguments->seed, "same seed, same text")->capture_default_str();
  verb->add_option("--context", arguments->checkpoint_context, "KV cache length when FILE is a checkpoint")->capture_default_str();
  verb->add_flag("--json", arguments->json, "one JSON document");
  verb->add_option("--profile", arguments->profile_file,
                   "time of every step: a trace for chrome://tracing in this file (replaced), sums by operator and by layer on stderr");
  AddRunFlags(*verb, arguments->flags);
  verb->footer(
      "Examples:\n  taskpress run gemma.task -p \"Once upon a time\" -n 64\n  taskpress run gemma.litertlm --chat -p \"Hello\" "
      "--temperature 0.8 --seed 1");
  return {verb, [arguments] { return Run(*arguments); }};
}

}  // namespace taskpress
