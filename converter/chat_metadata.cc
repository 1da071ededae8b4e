#include "converter/chat_metadata.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "converter/jinja.h"
#include "schema/base/mapped_file.h"
#include "schema/metadata_lint.h"

namespace taskpress {
namespace {

bool Exists(const std::filesystem::path& file) {
  std::error_code ignored;
  return std::filesystem::exists(file, ignored);
}

// A member that is there and not null.
const Json* Find(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}
const Json* Find(const std::optional<Json>& object, const char* name) { return object ? Find(*object, name) : nullptr; }

// tokenizer_config.json: one template, or several with names, of which "default" counts.
Result<std::optional<std::string>> TemplateOfTokenizerConfig(const std::optional<Json>& config) {
  const Json* value = Find(config, "chat_template");
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  if (value->is_array()) {
    for (const Json& entry : *value) {
      const Json* name = Find(entry, "name");
      const Json* source = Find(entry, "template");
      if (name != nullptr && *name == "default" && source != nullptr && source->is_string()) return source->get<std::string>();
    }
  }
  return Fail(ErrorCode::kChatTemplate,
              "tokenizer_config.json: chat_template is neither a text nor a list with a template named \"default\"");
}

// ---- tokens ----

Result<int32_t> ReadTokenId(const Json& value, std::string_view where, const Tokenizer& tokenizer) {
  if (!value.is_number_integer()) return Fail(ErrorCode::kConfigField, "{}: {} is not a token id", where, value.dump().substr(0, 60));
  if (value < 0 || value >= tokenizer.vocab_size()) {
    return Fail(ErrorCode::kTokenOutOfRange, "{}: token {}, the tokenizer has 0..{}", where, value.dump().substr(0, 60),
                tokenizer.vocab_size() - 1);
  }
  return value.get<int32_t>();
}

// "eos_token_id": 1 or [1, 106].
Status AddTokenIds(const Json* value, std::string_view where, const Tokenizer& tokenizer, std::vector<int32_t>& ids) {
  if (value == nullptr) return {};
  const auto add = [&](const Json& entry) -> Status {
    const int32_t id = TRY(ReadTokenId(entry, where, tokenizer));
    if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
    return {};
  };
  if (!value->is_array()) return add(*value);
  for (const Json& entry : *value) TRY(add(entry));
  return {};
}

// "eos_token": "<eos>" or {"content": "<eos>"}.
std::optional<std::string> TokenName(const Json* value) {
  if (value != nullptr && value->is_object()) value = Find(*value, "content");
  if (value == nullptr || !value->is_string()) return std::nullopt;
  return value->get<std::string>();
}

Result<std::optional<TokenText>> ReadStartToken(const ChatFiles& files, const Tokenizer& tokenizer) {
  const Json* text_config = Find(files.config, "text_config");
  const std::pair<const Json*, std::string_view> sources[] = {
      {Find(files.config, "bos_token_id"), "config.json: bos_token_id"},
      {text_config == nullptr ? nullptr : Find(*text_config, "bos_token_id"), "config.json: text_config.bos_token_id"},
      {Find(files.generation, "bos_token_id"), "generation_config.json: bos_token_id"},
  };
  std::optional<TokenText> start;
  std::string_view first_source;
  for (const auto& [value, where] : sources) {
    if (value == nullptr) continue;
    const int32_t id = TRY(ReadTokenId(*value, where, tokenizer));
    if (start && start->id != id) {
      return Fail(ErrorCode::kConfigField, "{} is {}, but {} is {}; they must name the same token", where, id, first_source, start->id);
    }
    if (!start) first_source = where;
    start = TokenText{id, tokenizer.Piece(id)};
  }
  const std::optional<std::string> name = TokenName(Find(files.tokenizer_config, "bos_token"));
  if (start && name && *name != start->text) {
    return Fail(ErrorCode::kConfigField, "tokenizer_config.json: bos_token is \"{}\", but {} is \"{}\"", *name, first_source, start->text);
  }
  if (start || !name) return start;
  const std::optional<int32_t> id = tokenizer.FindPiece(*name);
  if (!id) return Fail(ErrorCode::kConfigField, "tokenizer_config.json: bos_token \"{}\" is not in the vocabulary", *name);
  return TokenText{*id, *name};
}

Result<std::vector<TokenText>> ReadStopTokens(const ChatFiles& files, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  TRY(AddTokenIds(Find(files.config, "eos_token_id"), "config.json: eos_token_id", tokenizer, ids));
  if (const Json* text_config = Find(files.config, "text_config")) {
    TRY(AddTokenIds(Find(*text_config, "eos_token_id"), "config.json: text_config.eos_token_id", tokenizer, ids));
  }
  TRY(AddTokenIds(Find(files.generation, "eos_token_id"), "generation_config.json: eos_token_id", tokenizer, ids));
  if (const std::optional<std::string> name = TokenName(Find(files.tokenizer_config, "eos_token"))) {
    const std::optional<int32_t> id = tokenizer.FindPiece(*name);
    if (!id) return Fail(ErrorCode::kConfigField, "tokenizer_config.json: eos_token \"{}\" is not in the vocabulary", *name);
    if (std::ranges::find(ids, *id) == ids.end()) ids.push_back(*id);
  }
  std::vector<TokenText> stops;
  for (const int32_t id : ids) stops.push_back({id, tokenizer.Piece(id)});
  return stops;
}

// ---- sampler ----

Result<float> ReadNumber(const Json& value, const char* name) {
  if (!value.is_number())
    return Fail(ErrorCode::kConfigField, "generation_config.json: {} is {}, expected a number", name, value.dump().substr(0, 60));
  return static_cast<float>(value.get<double>());
}

Result<SamplerSettings> ReadSampler(const ChatFiles& files, int32_t vocab_size, std::vector<std::string>& notes) {
  SamplerSettings sampler;
  if (!files.generation) {
    notes.emplace_back("no generation_config.json: the sampler has Gemma's settings, k 64, p 0.95, temperature 1");
    return sampler;
  }
  if (const Json* k = Find(files.generation, "top_k")) {
    if (!k->is_number_integer() || *k < 0) {
      return Fail(ErrorCode::kConfigField, "generation_config.json: top_k is {}, expected a count", k->dump().substr(0, 60));
    }
    // Hugging Face reads 0 as "no limit".
    sampler.k = *k == 0 || *k > vocab_size ? vocab_size : k->get<int32_t>();
  }
  if (const Json* p = Find(files.generation, "top_p")) sampler.p = TRY(ReadNumber(*p, "top_p"));
  if (const Json* temperature = Find(files.generation, "temperature")) sampler.temperature = TRY(ReadNumber(*temperature, "temperature"));
  if (const Json* sample = Find(files.generation, "do_sample"); sample != nullptr && *sample == false) {
    notes.emplace_back("generation_config.json: do_sample is false, so the sampler is greedy (k 1)");
    sampler.k = 1;
  }
  return sampler;
}

// ---- turns ----

struct Turn {
  const char* role;
  const char* content;
};

// Marks that survive trimming and that no template contains.
constexpr Turn kTurns[] = {{"user",
                            "\x01"
                            "A\x01"},
                           {"assistant",
                            "\x01"
                            "B\x01"},
                           {"user",
                            "\x01"
                            "C\x01"}};

// Some templates take a text, others only the list of parts that multimodal processors make.
enum class ContentForm : uint8_t { kText, kParts };

class MarkedChat {
 public:
  MarkedChat(JinjaTemplate chat, std::string_view start_token) : chat_(std::move(chat)), start_token_(start_token) {}

  Result<std::string> Render(size_t num_turns, bool generation_prompt) const {
    OrderedJson messages = OrderedJson::array();
    for (const Turn& turn : std::span(kTurns).first(num_turns)) {
      const OrderedJson content = form_ == ContentForm::kText ? OrderedJson(turn.content)
                                                              : OrderedJson::array({OrderedJson{{"type", "text"}, {"text", turn.content}}});
      messages.push_back(OrderedJson{{"role", turn.role}, {"content", content}});
    }
    OrderedJson variables;
    variables["messages"] = std::move(messages);
    variables["bos_token"] = start_token_;
    variables["add_generation_prompt"] = generation_prompt;
    return chat_.Render(variables);
  }

  // Settles how messages are given.
  Status ChooseForm() {
    const Result<std::string> as_text = Render(1, false);
    if (as_text && as_text->contains(kTurns[0].content)) return {};
    form_ = ContentForm::kParts;
    const Result<std::string> as_parts = Render(1, false);
    if (as_parts && as_parts->contains(kTurns[0].content)) return {};
    if (!as_text) return std::unexpected(as_text.error());
    return Fail(ErrorCode::kChatTemplate, "the template does not print the content of a user's message");
  }

 private:
  JinjaTemplate chat_;
  std::string start_token_;
  ContentForm form_ = ContentForm::kText;
};

// The text before, between and after the marked messages.
Result<std::vector<std::string>> CutAtMarks(const std::string& rendered, size_t num_turns) {
  std::vector<std::string> parts;
  size_t position = 0;
  for (const Turn& turn : std::span(kTurns).first(num_turns)) {
    const size_t found = rendered.find(turn.content, position);
    if (found == std::string::npos || rendered.find(turn.content, found + 1) != std::string::npos) {
      return Fail(ErrorCode::kChatTemplate, "the template does not print each message once, in order and unchanged");
    }
    parts.push_back(rendered.substr(position, found - position));
    position = found + std::string_view(turn.content).size();
  }
  parts.push_back(rendered.substr(position));
  return parts;
}

Status CheckRendering(const MarkedChat& chat, const ChatAffixes& affixes, size_t num_turns, bool generation_prompt) {
  std::string expected = affixes.start;
  for (const Turn& turn : std::span(kTurns).first(num_turns)) {
    const TurnAffixes& around = std::string_view(turn.role) == "user" ? affixes.user : affixes.model;
    expected += around.prefix + turn.content + around.suffix;
  }
  if (generation_prompt) expected += affixes.model.prefix;
  const std::string rendered = TRY(chat.Render(num_turns, generation_prompt));
  if (rendered == expected) return {};
  return Fail(ErrorCode::kChatTemplate,
              "the template is more than prefixes and suffixes: {} turns{} render as {}, put together from the affixes they are {}; "
              "clients could not "
              "reproduce it",
              num_turns, generation_prompt ? " and the generation prompt" : "", Json(rendered).dump(), Json(expected).dump());
}

}  // namespace

Result<ChatFiles> ReadChatFiles(const std::filesystem::path& checkpoint_folder) {
  ChatFiles files;
  files.config = TRY(ReadJsonFile(checkpoint_folder / "config.json"));
  if (const auto path = checkpoint_folder / "generation_config.json"; Exists(path)) files.generation = TRY(ReadJsonFile(path));
  if (const auto path = checkpoint_folder / "tokenizer_config.json"; Exists(path)) files.tokenizer_config = TRY(ReadJsonFile(path));
  if (const auto path = checkpoint_folder / "chat_template.jinja"; Exists(path)) {
    const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(path));
    if (file->size() > JinjaLimits().max_template_bytes) {
      return Fail(ErrorCode::kChatTemplate, "{}: {} bytes, at most {} are read", path.string(), file->size(),
                  JinjaLimits().max_template_bytes);
    }
    files.template_source = std::string(AsText(file->bytes()));
  } else {
    files.template_source = TRY(TemplateOfTokenizerConfig(files.tokenizer_config));
  }
  return files;
}

Result<ChatAffixes> DeriveChatAffixes(std::string_view template_source, std::string_view start_token) {
  MarkedChat chat(TRY(JinjaTemplate::Parse(template_source)), start_token);
  TRY(chat.ChooseForm());
  const std::string one_turn = TRY(chat.Render(1, false));
  const std::string two_turns = TRY(chat.Render(2, false));
  const std::vector<std::string> around_one = TRY(CutAtMarks(one_turn, 1));
  const std::vector<std::string> around_two = TRY(CutAtMarks(two_turns, 2));
  ChatAffixes affixes;
  const bool starts = !start_token.empty() && around_one[0].starts_with(start_token);
  if (starts) affixes.start = start_token;
  affixes.user = {around_one[0].substr(affixes.start.size()), around_one[1]};
  if (!around_two[1].starts_with(affixes.user.suffix)) {
    return Fail(ErrorCode::kChatTemplate, "the template ends the last turn differently from others: {} against {}",
                Json(around_one[1]).dump(), Json(around_two[1]).dump());
  }
  affixes.model = {around_two[1].substr(affixes.user.suffix.size()), around_two[2]};
  for (const size_t num_turns : {1U, 2U, 3U}) TRY(CheckRendering(chat, affixes, num_turns, false));
  for (const size_t num_turns : {1U, 3U}) TRY(CheckRendering(chat, affixes, num_turns, true));
  return affixes;
}

Result<ChatMetadata> MakeChatMetadata(const ChatFiles& files, const Tokenizer& tokenizer) {
  ChatMetadata chat;
  chat.metadata.start_token = TRY(ReadStartToken(files, tokenizer));
  chat.metadata.stop_tokens = TRY(ReadStopTokens(files, tokenizer));
  chat.metadata.sampler = TRY(ReadSampler(files, tokenizer.vocab_size(), chat.notes));
  if (files.template_source) {
    const std::string start = chat.metadata.start_token ? chat.metadata.start_token->text : "";
    const ChatAffixes affixes = TRY(DeriveChatAffixes(*files.template_source, start));
    chat.metadata.user = affixes.user;
    chat.metadata.model = affixes.model;
    if (affixes.start.empty()) chat.notes.emplace_back("the chat template does not write the start token; clients add it all the same");
    const bool model_turn_stops =
        std::ranges::any_of(chat.metadata.stop_tokens, [&](const TokenText& stop) { return affixes.model.suffix.contains(stop.text); });
    if (!model_turn_stops) {
      chat.notes.push_back(
          Format("no stop token is part of {}, which ends the model's turns: answers may run on", Json(affixes.model.suffix).dump()));
    }
  } else {
    chat.notes.emplace_back("no chat template: turn prefixes and suffixes are empty, as fits a base model");
  }
  TRY(LintMetadata(chat.metadata, tokenizer));
  return chat;
}

}  // namespace taskpress
