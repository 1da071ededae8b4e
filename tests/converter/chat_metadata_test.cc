#include "converter/chat_metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "schema/base/mapped_file.h"
#include "tests/testing/tiny_sentencepiece.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::filesystem::path kMicro = std::filesystem::path(TASKPRESS_TEST_DATA) / "micro-e4b";

Tokenizer Micro() { return Tokenizer::FromModel(MappedFile::Open(kMicro / "tokenizer.model").value()->bytes()).value(); }

TEST(ChatMetadataTest, TheMicroCheckpointHasTheConversationOfGemma) {
  const Result<ChatMetadata> chat = MakeChatMetadata(ReadChatFiles(kMicro).value(), Micro());
  ASSERT_TRUE(chat.has_value()) << chat.error().message;
  const BundleMetadata& metadata = chat->metadata;
  EXPECT_EQ(metadata.start_token, (TokenText{2, "<bos>"}));
  EXPECT_THAT(metadata.stop_tokens, ElementsAre(TokenText{1, "<eos>"}, TokenText{10, "<end_of_turn>"}));
  EXPECT_EQ(metadata.user, (TurnAffixes{"<start_of_turn>user\n", "<end_of_turn>\n"}));
  EXPECT_EQ(metadata.model, (TurnAffixes{"<start_of_turn>model\n", "<end_of_turn>\n"}));
  EXPECT_EQ(metadata.sampler, (SamplerSettings{64, 0.95F, 1.0F}));
  EXPECT_THAT(chat->notes, IsEmpty());
}

ChatFiles MicroFiles() { return ReadChatFiles(kMicro).value(); }

TEST(ChatMetadataTest, StopTokensAreTheUnionOfAllFiles) {
  ChatFiles files = MicroFiles();
  files.config["eos_token_id"] = 1;
  files.generation->at("eos_token_id") = Json::array({1, 10});
  files.tokenizer_config->at("eos_token") = {{"content", "<end_of_turn>"}};
  EXPECT_THAT(MakeChatMetadata(files, Micro())->metadata.stop_tokens, ElementsAre(TokenText{1, "<eos>"}, TokenText{10, "<end_of_turn>"}));
  files.generation.reset();
  EXPECT_THAT(MakeChatMetadata(files, Micro())->metadata.stop_tokens, ElementsAre(TokenText{1, "<eos>"}, TokenText{10, "<end_of_turn>"}));
}

TEST(ChatMetadataTest, WithoutATemplateThereAreNoAffixesAndANote) {
  ChatFiles files = MicroFiles();
  files.template_source.reset();
  const ChatMetadata chat = MakeChatMetadata(files, Micro()).value();
  EXPECT_EQ(chat.metadata.user, TurnAffixes());
  EXPECT_EQ(chat.metadata.model, TurnAffixes());
  EXPECT_THAT(chat.notes, ElementsAre(HasSubstr("no chat template")));
}

TEST(ChatMetadataTest, SaysWhenNothingStopsTheModelsTurn) {
  ChatFiles files = MicroFiles();
  files.config["eos_token_id"] = 1;
  files.generation->erase("eos_token_id");
  EXPECT_THAT(MakeChatMetadata(files, Micro())->notes, ElementsAre(HasSubstr("answers may run on")));
}

TEST(ChatMetadataTest, TheSamplerFollowsGenerationConfig) {
  ChatFiles files = MicroFiles();
  files.generation = Json{{"top_k", 40}, {"top_p", 0.5}, {"temperature", 0.25}};
  EXPECT_EQ(MakeChatMetadata(files, Micro())->metadata.sampler, (SamplerSettings{40, 0.5F, 0.25F}));
  files.generation = Json{{"do_sample", false}};
  EXPECT_EQ(MakeChatMetadata(files, Micro())->metadata.sampler.k, 1);
  files.generation = Json{{"top_k", 0}};
  EXPECT_EQ(MakeChatMetadata(files, Micro())->metadata.sampler.k, 2304);
}

struct Fault {
  const char* name;
  ErrorCode code;
  std::function<void(ChatFiles&)> make;
};

TEST(ChatMetadataTest, EveryFaultIsFound) {
  const Fault faults[] = {
      {"no stop token at all", ErrorCode::kMetadataLint,
       [](ChatFiles& f) {
         f.config.erase("eos_token_id");
         f.config["text_config"].erase("eos_token_id");
         f.generation.reset();
         f.tokenizer_config.reset();
       }},
      {"newline as stop token", ErrorCode::kStopTokenLint, [](ChatFiles& f) { f.generation->at("eos_token_id") = Json::array({1, 11}); }},
      {"stop token out of range", ErrorCode::kTokenOutOfRange, [](ChatFiles& f) { f.config["eos_token_id"] = 2304; }},
      {"negative stop token", ErrorCode::kTokenOutOfRange, [](ChatFiles& f) { f.config["eos_token_id"] = -1; }},
      {"stop token is a text", ErrorCode::kConfigField, [](ChatFiles& f) { f.config["eos_token_id"] = "1"; }},
      {"stop token is a list of lists", ErrorCode::kConfigField,
       [](ChatFiles& f) { f.config["eos_token_id"] = Json::array({Json::array({1})}); }},
      {"stop token is a fraction", ErrorCode::kConfigField, [](ChatFiles& f) { f.config["eos_token_id"] = 1.5; }},
      {"eos_token unknown", ErrorCode::kConfigField, [](ChatFiles& f) { f.tokenizer_config->at("eos_token") = "</s>"; }},
      {"start tokens differ", ErrorCode::kConfigField, [](ChatFiles& f) { f.generation->at("bos_token_id") = 1; }},
      {"start token named differently", ErrorCode::kConfigField, [](ChatFiles& f) { f.tokenizer_config->at("bos_token") = "<s>"; }},
      {"no start token", ErrorCode::kMetadataLint,
       [](ChatFiles& f) {
         f.config.erase("bos_token_id");
         f.config["text_config"].erase("bos_token_id");
         f.generation->erase("bos_token_id");
         f.tokenizer_config.reset();
       }},
      {"top_k negative", ErrorCode::kConfigField, [](ChatFiles& f) { f.generation->at("top_k") = -1; }},
      {"top_k is a text", ErrorCode::kConfigField, [](ChatFiles& f) { f.generation->at("top_k") = "many"; }},
      {"top_p too large", ErrorCode::kMetadataLint, [](ChatFiles& f) { f.generation->at("top_p") = 2; }},
      {"temperature is a list", ErrorCode::kConfigField, [](ChatFiles& f) { f.generation->at("temperature") = Json::array(); }},
      {"temperature zero", ErrorCode::kMetadataLint, [](ChatFiles& f) { f.generation->at("temperature") = 0; }},
      {"template damaged", ErrorCode::kChatTemplate, [](ChatFiles& f) { f.template_source = "{% for"; }},
  };
  const Tokenizer tokenizer = Micro();
  for (const Fault& fault : faults) {
    ChatFiles files = MicroFiles();
    fault.make(files);
    const Result<ChatMetadata> chat = MakeChatMetadata(files, tokenizer);
    ASSERT_FALSE(chat.has_value()) << fault.name;
    EXPECT_EQ(chat.error().code, fault.code) << fault.name << ": " << chat.error().message;
  }
}

TEST(ChatAffixesTest, OtherFamiliesAreReadOffTheirTemplatesToo) {
  const ChatAffixes chatml =
      DeriveChatAffixes(
          "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
          "<s>")
          .value();
  EXPECT_EQ(chatml.start, "");
  // trim_blocks takes the line break after {% endfor %}, not the one before it.
  EXPECT_EQ(chatml.user, (TurnAffixes{"<|im_start|>user\n", "<|im_end|>\n"}));
  EXPECT_EQ(chatml.model, (TurnAffixes{"<|im_start|>assistant\n", "<|im_end|>\n"}));
}

TEST(ChatAffixesTest, TemplatesThatTakeOnlyPartsAreGivenParts) {
  const ChatAffixes affixes =
      DeriveChatAffixes(
          "{{ bos_token }}{% for m in messages %}[{{ m.role[0] }}]{% for p in m.content %}{{ p.text }}{% endfor %};{% endfor %}"
          "{% if add_generation_prompt %}[a]{% endif %}",
          "<bos>")
          .value();
  EXPECT_EQ(affixes.start, "<bos>");
  EXPECT_EQ(affixes.user, (TurnAffixes{"[u]", ";"}));
  EXPECT_EQ(affixes.model, (TurnAffixes{"[a]", ";"}));
}

TEST(ChatAffixesTest, TemplatesThatAreMoreThanAffixesAreRefused) {
  const char* const loop = "{% if add_generation_prompt %}M:{% endif %}";
  const std::pair<const char*, const char*> templates[] = {
      {"numbered turns", "{% for m in messages %}{{ loop.index }}{{ m.content }};{% endfor %}"},
      {"first turn differs", "{% for m in messages %}{% if loop.first %}S{% endif %}{{ m.role }}:{{ m.content }};{% endfor %}"},
      {"last turn has no end", "{% for m in messages %}{{ m.role }}:{{ m.content }}{% if not loop.last %};{% endif %}{% endfor %}"},
      {"no message", "{% for m in messages %}{{ m.role }}{% endfor %}"},
      {"message twice", "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}"},
      {"reversed", "{% for m in messages[::-1] %}{{ m.role }}:{{ m.content }};{% endfor %}"},
      {"changed", "{% for m in messages %}{{ m.content | replace('\\x01', '') }}{% endfor %}"},
      {"generation prompt is not the model's prefix", "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"},
      {"refuses a conversation", "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}{{ messages[0].content }}"},
  };
  for (const auto& [name, source] : templates) {
    const Result<ChatAffixes> affixes = DeriveChatAffixes(std::string(source) + loop, "<bos>");
    ASSERT_FALSE(affixes.has_value()) << name;
    EXPECT_EQ(affixes.error().code, ErrorCode::kChatTemplate) << name;
  }
}

TEST(ChatFilesTest, TheTemplateMayLieInTokenizerConfig) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "chat_files";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const auto write = [&](const char* name, const std::string& text) { std::ofstream(folder / name) << text; };
  EXPECT_EQ(ReadChatFiles(folder).error().code, ErrorCode::kFileNotFound);
  write("config.json", "{}");
  EXPECT_FALSE(ReadChatFiles(folder)->template_source.has_value());
  write("tokenizer_config.json", R"({"chat_template": "one"})");
  EXPECT_EQ(ReadChatFiles(folder)->template_source, "one");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "two"}]})");
  EXPECT_EQ(ReadChatFiles(folder)->template_source, "two");
  write("chat_template.jinja", "three");
  EXPECT_EQ(ReadChatFiles(folder)->template_source, "three");
  std::filesystem::remove(folder / "chat_template.jinja");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "tool", "template": "t"}]})");
  EXPECT_EQ(ReadChatFiles(folder).error().code, ErrorCode::kChatTemplate);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace taskpress
