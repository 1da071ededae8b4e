#include "schema/metadata_lint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "tests/testing/tiny_sentencepiece.h"

namespace taskpress {
namespace {

Tokenizer Tiny() { return Tokenizer::FromModel(AsBytes(testing::TinyModel().SerializeAsString())).value(); }

BundleMetadata GoodMetadata() {
  BundleMetadata metadata;
  metadata.start_token = TokenText{2, "<bos>"};
  metadata.stop_tokens = {{1, "<eos>"}, {4, "<turn>"}, {7, ""}, {TokenText::kNoTokenId, "[END]"}};
  return metadata;
}

TEST(MetadataLintTest, AcceptsControlPiecesAndMarkers) {
  const Status status = LintMetadata(GoodMetadata(), Tiny());
  EXPECT_TRUE(status.has_value()) << status.error().message;
}

struct Fault {
  const char* name;
  ErrorCode code;
  std::function<void(BundleMetadata&)> make;
};

TEST(MetadataLintTest, EveryFaultIsFound) {
  const auto stop_at = [](int32_t id) { return [id](BundleMetadata& m) { m.stop_tokens.push_back({id, ""}); }; };
  const Fault faults[] = {
      {"no start token", ErrorCode::kMetadataLint, [](auto& m) { m.start_token.reset(); }},
      {"start token out of range", ErrorCode::kTokenOutOfRange, [](auto& m) { m.start_token = TokenText{9999, ""}; }},
      {"start token misspelled", ErrorCode::kMetadataLint, [](auto& m) { m.start_token->text = "<s>"; }},
      {"start token unknown", ErrorCode::kMetadataLint, [](auto& m) { m.start_token = TokenText{TokenText::kNoTokenId, "<s>"}; }},
      {"no stop token", ErrorCode::kMetadataLint, [](auto& m) { m.stop_tokens.clear(); }},
      {"stop token out of range", ErrorCode::kTokenOutOfRange, stop_at(273)},
      {"negative stop token", ErrorCode::kTokenOutOfRange, stop_at(-7)},
      {"stop token misspelled", ErrorCode::kMetadataLint, [](auto& m) { m.stop_tokens[0].text = "</s>"; }},
      {"stop token unknown", ErrorCode::kMetadataLint, [](auto& m) { m.stop_tokens.push_back({TokenText::kNoTokenId, "</s>"}); }},
      {"newline, the case of an official file", ErrorCode::kStopTokenLint, stop_at(5)},
      {"spaces", ErrorCode::kStopTokenLint, stop_at(267)},
      {"user-defined word", ErrorCode::kStopTokenLint, stop_at(6)},
      {"byte", ErrorCode::kStopTokenLint, stop_at(8 + 'A')},
      {"byte of a newline", ErrorCode::kStopTokenLint, stop_at(8 + '\n')},
      {"ordinary piece", ErrorCode::kStopTokenLint, stop_at(264)},
      {"unknown piece", ErrorCode::kStopTokenLint, stop_at(3)},
      {"start token as stop token", ErrorCode::kStopTokenLint, stop_at(2)},
      {"k", ErrorCode::kMetadataLint, [](auto& m) { m.sampler.k = 0; }},
      {"p of zero", ErrorCode::kMetadataLint, [](auto& m) { m.sampler.p = 0; }},
      {"p above one", ErrorCode::kMetadataLint, [](auto& m) { m.sampler.p = 1.5F; }},
      {"p not a number", ErrorCode::kMetadataLint, [](auto& m) { m.sampler.p = std::numeric_limits<float>::quiet_NaN(); }},
      {"temperature of zero", ErrorCode::kMetadataLint, [](auto& m) { m.sampler.temperature = 0; }},
      {"temperature infinite", ErrorCode::kMetadataLint, [](auto& m) { m.sampler.temperature = std::numeric_limits<float>::infinity(); }},
  };
  const Tokenizer tokenizer = Tiny();
  for (const Fault& fault : faults) {
    BundleMetadata metadata = GoodMetadata();
    fault.make(metadata);
    const Status status = LintMetadata(metadata, tokenizer);
    ASSERT_FALSE(status.has_value()) << fault.name;
    EXPECT_EQ(status.error().code, fault.code) << fault.name << ": " << status.error().message;
  }
}

}  // namespace
}  // namespace taskpress
