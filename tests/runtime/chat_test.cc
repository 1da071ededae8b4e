#include "runtime/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "schema/base/mapped_file.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;

const std::filesystem::path kMicro = std::filesystem::path(TASKPRESS_TEST_DATA) / "micro-e4b";

Tokenizer Micro() { return Tokenizer::FromModel(MappedFile::Open(kMicro / "tokenizer.model").value()->bytes()).value(); }

BundleMetadata GemmaMetadata() {
  BundleMetadata metadata;
  metadata.start_token = TokenText{2, "<bos>"};
  metadata.stop_tokens = {{1, "<eos>"}, {10, "<end_of_turn>"}};
  metadata.user = {"<start_of_turn>user\n", "<end_of_turn>\n"};
  metadata.model = {"<start_of_turn>model\n", "<end_of_turn>\n"};
  return metadata;
}

// Ids by `tokenizers` 0.22.1 on the text that the checkpoint's template renders.
TEST(ChatTest, ATurnIsWhatTheTemplateRenders) {
  const Tokenizer tokenizer = Micro();
  const std::vector<int32_t> tokens = EncodeChatTurn(tokenizer, GemmaMetadata(), " \n Hello world\t\n").value();
  EXPECT_EQ(tokens, tokenizer.Encode("<bos><start_of_turn>user\nHello world<end_of_turn>\n<start_of_turn>model\n").value());
  EXPECT_THAT(tokens, ElementsAre(2, 9, 319, 286, 11, 2009, 1062, 1957, 479, 402, 10, 11, 9, 1967, 461, 1963, 11));
}

TEST(ChatTest, AMetadataWithoutAffixesGivesTheTextAfterTheStartToken) {
  const Tokenizer tokenizer = Micro();
  BundleMetadata metadata;
  EXPECT_EQ(EncodeChatTurn(tokenizer, metadata, "Hello").value(), tokenizer.Encode("Hello").value());
  metadata.start_token = TokenText{TokenText::kNoTokenId, "<bos>"};
  EXPECT_EQ(EncodeChatTurn(tokenizer, metadata, "Hello").value(), tokenizer.Encode("<bos>Hello").value());
  metadata.start_token = TokenText{TokenText::kNoTokenId, "<nothing>"};
  EXPECT_EQ(EncodeChatTurn(tokenizer, metadata, "Hello").error().code, ErrorCode::kMetadataLint);
}

TEST(ChatTest, RefusesTextThatIsNotUtf8) { EXPECT_EQ(EncodeChatTurn(Micro(), GemmaMetadata(), "\xFF").error().code, ErrorCode::kNotUtf8); }

}  // namespace
}  // namespace taskpress
