#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <memory>

#include "runtime/divergence.h"
#include "schema/base/version.h"
#include "schema/teacher_file.h"
#include "tools/command.h"
#include "tools/layer_errors.h"
#include "tools/model_source.h"

namespace taskpress {
namespace {

using Windows = std::vector<std::vector<int32_t>>;

struct CompareArguments {
  std::string a;
  std::string b;
  std::string text_file;
  std::string tokens;
  int64_t window = 256;
  std::string size_b;
  std::string teacher;
  std::string save_teacher;
  std::string teacher_top = "256";
  bool layers = false;
  int64_t layer_tokens = 256;
  bool force = false;
  bool json = false;
  RunFlags flags;
  [[nodiscard]] bool saves_only() const { return b.empty() && !save_teacher.empty(); }
};

Status CheckArguments(const CompareArguments& arguments) {
  const bool texts = !arguments.tokens.empty() || !arguments.text_file.empty();
  if (!arguments.tokens.empty() && !arguments.text_file.empty()) return Fail(ErrorCode::kUsage, "give either --text or --tokens");
  if (!texts && arguments.teacher.empty()) return Fail(ErrorCode::kUsage, "give either --text or --tokens");
  if (arguments.window < 2) return Fail(ErrorCode::kUsage, "--window {}: at least 2", arguments.window);
  if (arguments.b.empty() && arguments.teacher.empty() && arguments.save_teacher.empty()) {
    return Fail(ErrorCode::kUsage, "there is no reference: give B, or --teacher FILE that compare --save-teacher wrote");
  }
  if (!arguments.teacher.empty() && !arguments.save_teacher.empty()) {
    return Fail(ErrorCode::kUsage, "--teacher is there already; --save-teacher makes one of a model");
  }
  if (arguments.layers && (arguments.b.empty() || !arguments.teacher.empty())) {
    return Fail(ErrorCode::kUsage, "--layers looks into both models: give A and B, and no --teacher");
  }
  if (arguments.layer_tokens < 1) return Fail(ErrorCode::kUsage, "--layer-tokens {}: at least 1", arguments.layer_tokens);
  std::error_code ignored;
  if (!arguments.save_teacher.empty() && !arguments.force && std::filesystem::exists(arguments.save_teacher, ignored)) {
    return Fail(ErrorCode::kOutputExists, "{}: exists already; pass --force to replace it", arguments.save_teacher);
  }
  return {};
}

// What a teacher file of this model would say about itself.
Result<TeacherInfo> InfoOf(const CompareArguments& arguments, std::string identity, int32_t vocab_size) {
  TeacherInfo info{.teacher = std::move(identity), .version = std::string(Version()), .vocab_size = vocab_size};
  if (arguments.teacher_top == "all") {
    info.kind = TeacherKind::kFull;
    info.top = std::min<int64_t>(static_cast<int64_t>(kOverlapTokens), vocab_size);
    return info;
  }
  const std::string& text = arguments.teacher_top;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), info.top);
  if (error != std::errc() || end != text.data() + text.size() || info.top < static_cast<int64_t>(kOverlapTokens)) {
    return Fail(ErrorCode::kUsage, "--teacher-top {}: a number of tokens, {} or more, or \"all\"", text, kOverlapTokens);
  }
  info.top = std::min<int64_t>(info.top, vocab_size);
  return info;
}

std::optional<int32_t> Following(std::span<const int32_t> tokens, int32_t index) {
  const size_t next = static_cast<size_t>(index) + 1;
  return next < tokens.size() ? std::optional(tokens[next]) : std::nullopt;
}

// Hands over the row of logits behind every token of a window.
Status ScoreWindow(std::string_view path, OpenedModel& model, std::span<const int32_t> tokens, const Session::ScoreRow& take) {
  model.session.Reset();
  return model.session.Score(tokens, [&](int32_t index, std::span<const float> logits) -> Status {
    if (StopRequested()) return Fail(ErrorCode::kInterrupted, "while comparing");
    if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) {
      return Fail(ErrorCode::kNotFinite, "{}: among the logits after token {} of a window", path, index);
    }
    return take(index, logits);
  });
}

Status CompareWindowOfModels(const CompareArguments& arguments, OpenedModel& a, OpenedModel& b, std::span<const int32_t> window,
                             TeacherWriter* writer, const TeacherInfo& info, Divergence& divergence) {
  const auto width = static_cast<size_t>(b.session.vocab_size());
  std::vector<float> rows;  // of b, [tokens, vocab]
  rows.reserve(window.size() * width);
  if (writer != nullptr) TRY(writer->BeginWindow(window));
  TRY(ScoreWindow(arguments.b, b, window, [&](int32_t index, std::span<const float> logits) -> Status {
    rows.insert(rows.end(), logits.begin(), logits.end());
    return writer == nullptr ? Status() : writer->AddRow(MakeTeacherRow(logits, Following(window, index), info));
  }));
  divergence.BeginWindow();
  return ScoreWindow(arguments.a, a, window, [&](int32_t index, std::span<const float> logits) -> Status {
    const std::span<const float> of_b = std::span(rows).subspan(static_cast<size_t>(index) * width, width);
    divergence.AddPosition(ComparePosition(logits, of_b, Following(window, index)));
    return {};
  });
}

// What a run has to show.
struct Outcome {
  std::optional<DivergenceSummary> divergence;
  std::optional<LayerErrors> layers;
  std::optional<TeacherInfo> teacher;  // of a file that was read or written
  std::string reference;
  size_t windows = 0;
  size_t longest = 0;  // tokens of the longest window
  int64_t positions = 0;
};

Result<Windows> WindowsOf(const CompareArguments& arguments, const OpenedModel& model, int64_t length) {
  if (!arguments.tokens.empty()) return Windows{TRY(ParseTokens(arguments.tokens))};
  return TextWindows(model, TRY(ReadTextFile(arguments.text_file)), length);
}

void CountWindows(const Windows& windows, Outcome& outcome) {
  outcome.windows = windows.size();
  for (const std::vector<int32_t>& window : windows) {
    outcome.longest = std::max(outcome.longest, window.size());
    outcome.positions += std::ssize(window);
  }
}

// Context that a checkpoint is opened with.
Result<int64_t> ContextFor(const CompareArguments& arguments) {
  const std::vector<int32_t> given = TRY(ParseTokens(arguments.tokens));
  return std::max<int64_t>(arguments.window, std::ssize(given));
}

Result<Outcome> SaveTeacher(const CompareArguments& arguments) {
  OpenedModel model = TRY(OpenModel(arguments.a, arguments.flags, TRY(ContextFor(arguments))));
  const TeacherInfo info = TRY(InfoOf(arguments, TRY(ModelIdentity(arguments.a, arguments.flags.size)), model.session.vocab_size()));
  const Windows windows = TRY(WindowsOf(arguments, model, std::min<int64_t>(arguments.window, model.session.context_length())));
  TeacherWriter writer = TRY(TeacherWriter::Create(arguments.save_teacher, info, arguments.force));
  for (const std::vector<int32_t>& window : windows) {
    TRY(writer.BeginWindow(window));
    TRY(ScoreWindow(arguments.a, model, window, [&](int32_t index, std::span<const float> logits) -> Status {
      return writer.AddRow(MakeTeacherRow(logits, Following(window, index), info));
    }));
  }
  TRY(writer.Commit());
  Outcome outcome{.teacher = info, .reference = arguments.a};
  CountWindows(windows, outcome);
  return outcome;
}

Result<Outcome> CompareModels(const CompareArguments& arguments) {
  const int64_t context = TRY(ContextFor(arguments));
  RunFlags flags_a = arguments.flags;
  // Fused steps keep what is between their operators to themselves.
  if (arguments.layers && flags_a.kernels == "fast") flags_a.kernels = "xnnpack";
  OpenedModel a = TRY(OpenModel(arguments.a, flags_a, context));
  RunFlags flags_b = flags_a;
  flags_b.size = arguments.size_b;
  // Rescaled channels leave the model the same function, but its weights only compare with weights that were rescaled alike.
  std::vector<Fold> folds;
  if (arguments.layers) folds = TRY(FoldsOf(a.session.model()));
  OpenedModel b = TRY(OpenModel(arguments.b, flags_b, context, {.folds = folds}));
  if (a.session.vocab_size() != b.session.vocab_size()) {
    return Fail(ErrorCode::kNotComparable, "{} has {} tokens, {} has {}", arguments.a, a.session.vocab_size(), arguments.b,
                b.session.vocab_size());
  }
  const int64_t length = std::min<int64_t>({arguments.window, a.session.context_length(), b.session.context_length()});
  const Windows windows = TRY(WindowsOf(arguments, a, length));
  Outcome outcome{.reference = arguments.b};
  std::optional<TeacherWriter> writer;
  if (!arguments.save_teacher.empty()) {
    outcome.teacher = TRY(InfoOf(arguments, TRY(ModelIdentity(arguments.b, arguments.size_b)), b.session.vocab_size()));
    writer = TRY(TeacherWriter::Create(arguments.save_teacher, *outcome.teacher, arguments.force));
  }
  Divergence divergence(a.session.vocab_size());
  for (const std::vector<int32_t>& window : windows) {
    TRY(CompareWindowOfModels(arguments, a, b, window, writer ? &*writer : nullptr, outcome.teacher.value_or(TeacherInfo()), divergence));
  }
  if (writer) TRY(writer->Commit());
  outcome.divergence = divergence.Summarize();
  CountWindows(windows, outcome);
  if (arguments.layers) {
    const RowWork work{.threads = arguments.flags.threads, .stop = &StopRequested()};
    outcome.layers = TRY(MeasureLayerErrors(a.session, b.session, windows, arguments.layer_tokens, work));
  }
  return outcome;
}

Result<Windows> WindowsOf(const TeacherFile& teacher) {
  Windows windows;
  for (const TeacherWindow& window : teacher.windows()) {
    const TeacherWindowReader reader = TRY(teacher.OpenWindow(window));
    windows.emplace_back(reader.tokens().begin(), reader.tokens().end());
  }
  return windows;
}

// Whether the file is of what the command line says besides.
Status CheckTeacher(const CompareArguments& arguments, const TeacherFile& teacher, const OpenedModel& a, const Windows& windows) {
  const TeacherInfo& info = teacher.info();
  if (info.vocab_size != a.session.vocab_size()) {
    return Fail(ErrorCode::kTeacherMismatch, "{}: has distributions over {} tokens, {} predicts {}", arguments.teacher, info.vocab_size,
                arguments.a, a.session.vocab_size());
  }
  if (!arguments.b.empty()) {
    const std::string identity = TRY(ModelIdentity(arguments.b, arguments.size_b));
    if (identity != info.teacher) {
      return Fail(ErrorCode::kTeacherMismatch, "{}: is of {}, {} is {}", arguments.teacher, info.teacher, arguments.b, identity);
    }
  }
  int64_t longest = 0;
  for (const std::vector<int32_t>& window : windows) longest = std::max<int64_t>(longest, std::ssize(window));
  if (longest > a.session.context_length()) {
    return Fail(ErrorCode::kTeacherMismatch, "{}: has windows of {} tokens, {} holds {}; make it with a smaller --window",
                arguments.teacher, longest, arguments.a, a.session.context_length());
  }
  if (arguments.tokens.empty() && arguments.text_file.empty()) return {};
  // Windows of the text are as long as the file's; the last may be shorter.
  if (TRY(WindowsOf(arguments, a, longest)) != windows) {
    return Fail(ErrorCode::kTeacherMismatch, "{}: is of another text than {}, or {} tokenizes it otherwise", arguments.teacher,
                arguments.tokens.empty() ? arguments.text_file : "--tokens", arguments.a);
  }
  return {};
}

Result<Outcome> CompareWithFile(const CompareArguments& arguments) {
  const TeacherFile teacher = TRY(TeacherFile::Open(arguments.teacher));
  const Windows windows = TRY(WindowsOf(teacher));
  if (windows.empty()) return Fail(ErrorCode::kTeacherMismatch, "{}: has no text", arguments.teacher);
  Outcome outcome{.teacher = teacher.info(), .reference = arguments.teacher};
  CountWindows(windows, outcome);
  OpenedModel a = TRY(OpenModel(arguments.a, arguments.flags, std::max<int64_t>(2, static_cast<int64_t>(outcome.longest))));
  TRY(CheckTeacher(arguments, teacher, a, windows));
  Divergence divergence(a.session.vocab_size());
  TeacherRow row;
  for (size_t i = 0; i < windows.size(); ++i) {
    TeacherWindowReader reader = TRY(teacher.OpenWindow(teacher.windows()[i]));
    divergence.BeginWindow();
    TRY(ScoreWindow(arguments.a, a, windows[i], [&](int32_t index, std::span<const float> logits) -> Status {
      if (Status read = reader.Read(row); !read) return std::unexpected(WithContext(std::move(read).error(), teacher.name()));
      divergence.AddPosition(CompareWithTeacher(logits, row, teacher.info().kind, Following(windows[i], index)));
      return {};
    }));
  }
  outcome.divergence = divergence.Summarize();
  return outcome;
}

// What the divergence is exact for.
std::string_view KlIs(const CompareArguments& arguments, const Outcome& outcome) {
  if (arguments.teacher.empty()) return "exact";
  return outcome.teacher->kind == TeacherKind::kFull ? "float16" : "lower_bound";
}

OrderedJson ToJson(const CompareArguments& arguments, const Outcome& outcome) {
  OrderedJson json;
  if (outcome.divergence) {
    const DivergenceSummary& summary = *outcome.divergence;
    json = {{"kl_mean", summary.kl_mean},
            {"kl_standard_error", summary.kl_standard_error},
            {"kl_window_standard_error", summary.kl_window_standard_error},
            {"kl_median", summary.kl_median},
            {"kl_p99", summary.kl_p99},
            {"kl_max", summary.kl_max},
            {"kl_is", KlIs(arguments, outcome)},
            {"top1_agreement", summary.top1_agreement},
            {"top5_overlap", summary.top5_overlap},
            {"rms_delta_p", summary.rms_delta_p},
            {"perplexity_a", summary.perplexity_a},
            {"perplexity_b", summary.perplexity_b},
            {"perplexity_ratio", summary.perplexity_ratio},
            {"perplexity_ratio_standard_error", summary.perplexity_ratio_standard_error},
            {"max_abs_difference", summary.max_abs_difference ? OrderedJson(*summary.max_abs_difference) : OrderedJson()}};
  }
  json["tokens"] = outcome.positions;
  json["windows"] = outcome.windows;
  json["window_tokens"] = outcome.longest;
  if (outcome.teacher) {
    const TeacherInfo& info = *outcome.teacher;
    json["teacher"] = {{"model", info.teacher}, {"vocab_size", info.vocab_size}};
    json["teacher"]["top"] = info.kind == TeacherKind::kFull ? OrderedJson("all") : OrderedJson(info.top);
  }
  if (outcome.layers) json["layers"] = LayerErrorsJson(*outcome.layers);
  return json;
}

void PrintDivergence(const CompareArguments& arguments, const Outcome& outcome) {
  const DivergenceSummary& summary = *outcome.divergence;
  const std::string_view kl_is = KlIs(arguments, outcome);
  std::cout << Format("a {}\nb {}\n", arguments.a, outcome.reference)
            << Format("positions {} in {} of up to {} tokens, each read from an empty context\n", summary.positions,
                      outcome.windows == 1 ? std::string("one window") : Format("{} windows", outcome.windows), outcome.longest)
            << Format("KL(b || a) mean {:.6f} nats, standard error {:.6f} ({:.6f} by windows)\n", summary.kl_mean,
                      summary.kl_standard_error, summary.kl_window_standard_error)
            << Format("  median {:.6f}, 99th percentile {:.6f}, largest {:.6f}\n", summary.kl_median, summary.kl_p99, summary.kl_max);
  if (kl_is == "lower_bound") {
    std::cout << Format("  a lower bound: the file names the {} likeliest tokens and takes the others together\n", outcome.teacher->top);
  } else if (kl_is == "float16") {
    std::cout << "  as exact as the file's float16 log-probabilities are\n";
  }
  std::cout << Format("top-1 agreement {:.4f}, top-5 overlap {:.4f}\n", summary.top1_agreement, summary.top5_overlap)
            << Format("perplexity a {:.4f}, b {:.4f}, ratio {:.5f}, standard error {:.5f}\n", summary.perplexity_a, summary.perplexity_b,
                      summary.perplexity_ratio, summary.perplexity_ratio_standard_error)
            << Format("probability of the token that follows: root mean square difference {:.5f}\n", summary.rms_delta_p);
}

Result<ExitStatus> Compare(const CompareArguments& arguments) {
  TRY(CheckArguments(arguments));
  const Outcome outcome = !arguments.teacher.empty() ? TRY(CompareWithFile(arguments))
                          : arguments.saves_only()   ? TRY(SaveTeacher(arguments))
                                                     : TRY(CompareModels(arguments));
  if (arguments.json) {
    PrintJson("compare", ToJson(arguments, outcome));
    return ExitStatus::kOk;
  }
  if (outcome.divergence) PrintDivergence(arguments, outcome);
  if (outcome.layers) std::cout << FormatLayerErrors(*outcome.layers);
  if (!arguments.save_teacher.empty()) {
    std::error_code ignored;
    std::cout << Format("{}: what {} predicts behind {} tokens, {} bytes\n", arguments.save_teacher, outcome.reference, outcome.positions,
                        std::filesystem::file_size(arguments.save_teacher, ignored));
  }
  return ExitStatus::kOk;
}

}  // namespace

Verb AddCompare(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("compare", "How far model A is from model B (the reference): KL divergence, agreement, perplexity");
  const auto arguments = std::make_shared<CompareArguments>();
  verb->add_option("a", arguments->a, "the model in question: a bundle or a checkpoint")->required();
  verb->add_option("b", arguments->b, "the reference: a bundle or a checkpoint (run in float)");
  verb->add_option("--text", arguments->text_file, "a text file; cut into windows");
  verb->add_option("--tokens", arguments->tokens, "ids instead of a text, 2,5,9 or @file.json");
  verb->add_option("--window", arguments->window, "tokens per window, each starts with the start token")->capture_default_str();
  verb->add_option("--size-b", arguments->size_b, "the same as --size, for B; --size is for A");
  verb->add_option("--save-teacher", arguments->save_teacher, "write what B predicts (without B: what A predicts) to this file");
  verb->add_option("--teacher-top", arguments->teacher_top, "tokens kept per position, the likeliest; or \"all\", in float16")
      ->capture_default_str();
  verb->add_option("--teacher", arguments->teacher, "compare with such a file instead of running B; the text is in it");
  verb->add_flag("--layers", arguments->layers, "also where the error comes from: matrix by matrix, layer by layer");
  verb->add_option("--layer-tokens", arguments->layer_tokens, "tokens that --layers reads, one by one")->capture_default_str();
  verb->add_flag("--force", arguments->force, "replace an existing --save-teacher file");
  verb->add_flag("--json", arguments->json, "one JSON document");
  AddRunFlags(*verb, arguments->flags);
  verb->footer(
      "Examples:\n  taskpress compare gemma-int4.task gemma-3n-E2B-it --text sample.txt\n  taskpress compare gemma-3n-E2B-it --text "
      "sample.txt --save-teacher sample.teacher\n  taskpress compare gemma-int4.task --teacher sample.teacher");
  return {verb, [arguments] { return Compare(*arguments); }};
}

}  // namespace taskpress
