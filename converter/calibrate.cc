#include "converter/calibrate.h"

#include <algorithm>
#include <set>

#include "converter/calibration_run.h"
#include "converter/prepare.h"
#include "schema/base/hash.h"
#include "schema/base/mapped_file.h"
#include "schema/base/text.h"
#include "schema/base/utf8.h"
#include "schema/base/version.h"
#include "schema/json.h"
#include "schema/tokenizer.h"

namespace taskpress {
namespace {

constexpr int64_t kMaxCalibrationTokens = int64_t{1} << 24;

std::unexpected<Error> BadLine(const std::filesystem::path& path, size_t line, std::string_view why) {
  return Fail(ErrorCode::kCalibrationFile, "{}, line {}: {}; a line is {{\"text\": \"..\"}}, {{\"messages\": [..]}} or a string",
              path.string(), line, why);
}

Result<CalibrationText> ParseLine(const std::filesystem::path& path, size_t line, std::string_view text) {
  const Result<Json> json = ParseJson(AsBytes(text));
  if (!json) return BadLine(path, line, json.error().message);
  if (json->is_string()) return CalibrationText{.chat = false, .parts = {json->get<std::string>()}};
  if (!json->is_object()) return BadLine(path, line, "neither an object nor a string");
  if (json->contains("text")) {
    if (!json->at("text").is_string()) return BadLine(path, line, "\"text\" is no string");
    return CalibrationText{.chat = false, .parts = {json->at("text").get<std::string>()}};
  }
  if (!json->contains("messages")) return BadLine(path, line, "neither \"text\" nor \"messages\"");
  CalibrationText chat{.chat = true, .parts = {}};
  const Json& messages = json->at("messages");
  if (!messages.is_array()) return BadLine(path, line, "\"messages\" is no list");
  for (const Json& message : messages) {
    const bool whole = message.is_object() && message.contains("role") && message.at("role").is_string() && message.contains("content") &&
                       message.at("content").is_string();
    if (!whole) return BadLine(path, line, "a message is {\"role\": \"user\", \"content\": \"..\"}");
    const std::string role = message.at("role").get<std::string>();
    const std::string_view expected = chat.parts.size() % 2 == 0 ? "user" : "assistant";
    const bool fits = role == expected || (expected == "assistant" && role == "model");
    if (!fits) return BadLine(path, line, Format("role \"{}\" where it is the turn of \"{}\"", role, expected));
    chat.parts.push_back(message.at("content").get<std::string>());
  }
  return chat;
}

// As the bundle's clients put a conversation together.
std::string TextOf(const CalibrationText& text, const BundleMetadata& metadata) {
  if (!text.chat) return text.parts.front();
  std::string all;
  for (size_t i = 0; i < text.parts.size(); ++i) {
    const TurnAffixes& affixes = i % 2 == 0 ? metadata.user : metadata.model;
    all += affixes.prefix + std::string(Trim(text.parts[i])) + affixes.suffix;
  }
  return all;
}

struct Windows {
  std::vector<std::vector<int32_t>> windows;
  int64_t length = 0;
  int64_t dropped = 0;
};

// Texts one behind the other, cut into windows that begin with the start token. A short text gets a shorter window.
Result<Windows> CutWindows(const std::vector<CalibrationText>& texts, const Tokenizer& tokenizer, const BundleMetadata& metadata,
                           const CalibrateOptions& options) {
  std::vector<int32_t> tokens;
  for (const CalibrationText& text : texts) {
    if (text.chat && text.parts.empty()) continue;
    const std::vector<int32_t> encoded = TRY(tokenizer.Encode(TextOf(text, metadata)));
    tokens.insert(tokens.end(), encoded.begin(), encoded.end());
  }
  if (tokens.empty()) return Fail(ErrorCode::kEmptyPrompt, "{}: no tokens", options.text.string());
  std::vector<int32_t> start;
  if (metadata.start_token) start.push_back(metadata.start_token->id);
  const auto head = static_cast<int64_t>(start.size());
  const int64_t length = std::min({options.window, options.tokens, static_cast<int64_t>(tokens.size()) + head});
  const int64_t most = options.tokens / length;
  Windows cut{.windows = {}, .length = length, .dropped = 0};
  size_t at = 0;
  while (static_cast<int64_t>(cut.windows.size()) < most && at + static_cast<size_t>(length - head) <= tokens.size()) {
    std::vector<int32_t>& window = cut.windows.emplace_back(start);
    const auto from = tokens.begin() + static_cast<ptrdiff_t>(at);
    window.insert(window.end(), from, from + (length - head));
    at += static_cast<size_t>(length - head);
  }
  cut.dropped = static_cast<int64_t>(tokens.size() - at);
  return cut;
}

std::string HashOf(const Windows& windows) {
  Sha256 hash;
  for (const std::vector<int32_t>& window : windows.windows) hash.Update(std::as_bytes(std::span(window)));
  return hash.FinishHex();
}

}  // namespace

Result<std::vector<CalibrationText>> ReadCalibrationTexts(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(path));
  const std::string_view all = AsText(file->bytes());
  if (ToLowerAscii(path.extension().string()) != ".jsonl") {
    if (!IsUtf8(all)) return Fail(ErrorCode::kNotUtf8, "{}", path.string());
    return std::vector<CalibrationText>{{.chat = false, .parts = {std::string(all)}}};
  }
  std::vector<CalibrationText> texts;
  size_t line = 0;
  for (size_t begin = 0; begin < all.size(); ++line) {
    const size_t end = std::min(all.find('\n', begin), all.size());
    const std::string_view text = Trim(all.substr(begin, end - begin));
    if (!text.empty()) texts.push_back(TRY(ParseLine(path, line + 1, text)));
    begin = end + 1;
  }
  return texts;
}

Result<CalibrateReport> Calibrate(const ModelFiles& files, const std::filesystem::path& checkpoint, const CalibrateOptions& options,
                                  const std::filesystem::path& output) {
  if (options.window < 2 || options.tokens < 2 || options.tokens > kMaxCalibrationTokens) {
    return Fail(ErrorCode::kUsage, "{} tokens in windows of {}: from 2 to {} tokens are possible", options.tokens, options.window,
                kMaxCalibrationTokens);
  }
  const std::vector<CalibrationText> texts = TRY(ReadCalibrationTexts(options.text));
  PrepareOptions prepare;
  prepare.recipe = TRY(RecipeFromName("f32"));
  prepare.slice = options.slice;
  prepare.lora = options.lora;
  prepare.work = options.work;
  prepare.model.context = options.window;
  prepare.model.prefill_lengths = {std::min<int64_t>(8, options.window)};
  prepare.model.calibration_length = options.window;
  PreparedModel model = TRY(PrepareModel(files, checkpoint, prepare));
  std::vector<std::byte> scratch;
  const Tokenizer tokenizer = TRY(Tokenizer::FromModel(TRY(ViewOrRead(*model.tokenizer, scratch))));
  const Windows windows = TRY(CutWindows(texts, tokenizer, model.metadata, options));
  if (windows.length < options.window) {  // the graph is for windows of one length
    prepare.model.context = windows.length;
    prepare.model.prefill_lengths = {std::min<int64_t>(8, windows.length)};
    prepare.model.calibration_length = windows.length;
    model = TRY(PrepareModel(files, checkpoint, prepare));
  }
  std::set<std::string, std::less<>> wanted;
  for (const BundleWeight& weight : model.weights) {
    const bool table = weight.quant_class == QuantClass::kEmbedding || weight.quant_class == QuantClass::kPerLayerEmbedding;
    if (!table && weight.quant_class != QuantClass::kSmall) wanted.insert(weight.name);
  }
  CalibrateReport report{.tokens = static_cast<int64_t>(windows.windows.size()) * windows.length,
                         .windows = static_cast<int64_t>(windows.windows.size()),
                         .window = windows.length,
                         .dropped_tokens = windows.dropped};
  CalibrationWriter writer = TRY(CalibrationWriter::Create(
      output, {.model = model.fingerprint, .token_hash = HashOf(windows), .tokens = report.tokens, .version = std::string(Version())},
      options.writer));
  const std::filesystem::path folder = std::filesystem::absolute(output).parent_path();
  const CalibrationRunOptions run{.work = options.work,
                                  .kind = options.kind,
                                  .scratch = folder,
                                  .wanted = [&](std::string_view weight) { return wanted.contains(weight); },
                                  .has = [&](const std::string& site) { return writer.Has(site); },
                                  .on_site = options.on_site};
  TRY(RunCalibration(model.graphs, windows.windows, run,
                     [&](const std::string& site, const SecondMoments& moments) { return writer.Add(site, moments); }));
  TRY(writer.Commit());
  std::error_code ignored;
  report.bytes = std::filesystem::file_size(output, ignored);
  return report;
}

}  // namespace taskpress
