// What a bundle's metadata says about conversation, derived from the checkpoint's own files.
#ifndef TASKPRESS_CONVERTER_CHAT_METADATA_H_
#define TASKPRESS_CONVERTER_CHAT_METADATA_H_

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/json.h"
#include "schema/metadata.h"
#include "schema/tokenizer.h"

namespace taskpress {

// The files a checkpoint keeps this knowledge in; those that are absent are empty.
struct ChatFiles {
  Json config;                                 // config.json
  std::optional<Json> generation;              // generation_config.json
  std::optional<Json> tokenizer_config;        // tokenizer_config.json
  std::optional<std::string> template_source;  // chat_template.jinja, else tokenizer_config.json "chat_template"
};
// kFileNotFound when config.json is absent, kBadJson, kChatTemplate.
Result<ChatFiles> ReadChatFiles(const std::filesystem::path& checkpoint_folder);

struct ChatMetadata {
  BundleMetadata metadata;         // max_num_tokens and model_type are left to the caller
  std::vector<std::string> notes;  // what a person should know, for the report
};

// Start token: bos_token_id of config.json, else generation_config.json. Stop tokens: every eos_token_id of config.json, its text_config
// and generation_config.json, and eos_token of tokenizer_config.json. Sampler: generation_config.json. Turn affixes: read off the chat
// template. Without a template the affixes stay empty. The result has passed LintMetadata(). kConfigField, kTokenOutOfRange, kChatTemplate,
// kStopTokenLint, kMetadataLint.
Result<ChatMetadata> MakeChatMetadata(const ChatFiles& files, const Tokenizer& tokenizer);

struct ChatAffixes {
  std::string start;  // what the template writes before the first turn: the start token or nothing
  TurnAffixes user;
  TurnAffixes model;
};
// Renders the template with marked messages and reads the affixes off; then checks that turns put together from them are what the template
// renders, for one, two and three turns. `start_token` is the value of bos_token. kChatTemplate.
Result<ChatAffixes> DeriveChatAffixes(std::string_view template_source, std::string_view start_token);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CHAT_METADATA_H_
