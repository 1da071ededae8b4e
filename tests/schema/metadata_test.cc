#include "schema/metadata.h"

#include <limits>

#include "schema/base/error.h"
#include "schema/metadata.pb.h"
#include "tests/schema/bundle_files.h"

namespace taskpress {
namespace {

BundleMetadata Gemma() {
  return {.start_token = TokenText{2, "<bos>"},
          .stop_tokens = {{1, "<eos>"}, {106, "<end_of_turn>"}},
          .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
          .model = {"<start_of_turn>model\n", "<end_of_turn>\n"},
          .sampler = {.k = 64, .p = 0.95F, .temperature = 1.0F},
          .max_num_tokens = 4096,
          .model_type = "gemma3n"};
}

TokenText IdOnly(int32_t id) { return {.id = id, .text = ""}; }
TokenText TextOnly(std::string text) { return {.id = TokenText::kNoTokenId, .text = std::move(text)}; }

Result<BundleMetadata> DecodeText(Container container, std::string_view bytes) { return DecodeMetadata(container, AsBytes(bytes)); }

// What a client finds when the message names no sampler.
constexpr SamplerSettings kGreedy{.k = 1, .p = 0.95F, .temperature = 1.0F};

TEST(MetadataTest, LlmMetadataIsWrittenByteForByteAsSpecified) {
  // Field numbers and wire types by hand; this pins them without the .proto.
  const std::string affix_user = std::string("\x0a\x01u\x12\x01v");
  const std::string affix_model = std::string("\x0a\x01m\x12\x01n");
  const std::string expected = std::string("\x0a\x05\x0a\x03\x0a\x01\x02", 7) +                             // 1: {1: {1: packed [2]}}
                               std::string("\x12\x05\x0a\x03\x0a\x01\x01", 7) +                             // 2
                               std::string("\x12\x05\x0a\x03\x0a\x01\x6a", 7) +                             // 2: 106
                               "\x1a\x10\x0a\x06" + affix_user + "\x12\x06" + affix_model +                 // 3: {1: user, 2: model}
                               std::string("\x22\x0e\x08\x02\x10\x40\x1d\0\0\0\x3f\x25\0\0\x80\x3f", 16) +  // 4: TOP_P, 64, 0.5, 1
                               std::string("\x28\x80\x20") +                                                // 5: 4096
                               std::string("\x32\x02\x12\x00", 4);                                          // 6: {2: {}}
  BundleMetadata metadata = Gemma();
  metadata.user = {"u", "v"};
  metadata.model = {"m", "n"};
  metadata.sampler.p = 0.5F;
  EXPECT_EQ(EncodeMetadata(Container::kLitertlm, metadata), expected);
}

TEST(MetadataTest, LlmParametersAreWrittenByteForByteAsSpecified) {
  const std::string expected = std::string("\x2a\x05<eos>") + "\x2a\x0d<end_of_turn>" + "\x32\x05<bos>" +  // 5, 5, 6
                               "\x42\x07\x12\x01u\x1a\x02vm" +                                             // 8: {2: "u", 3: "v" + "m"}
                               std::string("\x8a\x01\x10\x0a\x06\x0a\x01u\x12\x01v\x12\x06\x0a\x01m\x12\x01n");  // 17
  BundleMetadata metadata = Gemma();
  metadata.user = {"u", "v"};
  metadata.model = {"m", "n"};
  EXPECT_EQ(EncodeMetadata(Container::kTask, metadata), expected);
}

TEST(MetadataTest, LitertlmGivesBackAllButTheTexts) {
  BundleMetadata expected = Gemma();
  expected.start_token = IdOnly(2);
  expected.stop_tokens = {IdOnly(1), IdOnly(106)};
  const Result<BundleMetadata> decoded = DecodeText(Container::kLitertlm, EncodeMetadata(Container::kLitertlm, Gemma()));
  ASSERT_THAT(decoded, Succeeds());
  EXPECT_EQ(*decoded, expected);
}

TEST(MetadataTest, TaskGivesBackTextsAndTurns) {
  BundleMetadata expected = Gemma();
  expected.start_token = TextOnly("<bos>");
  expected.stop_tokens = {TextOnly("<eos>"), TextOnly("<end_of_turn>")};
  expected.sampler = kGreedy;
  expected.max_num_tokens = 0;
  expected.model_type = "";
  const Result<BundleMetadata> decoded = DecodeText(Container::kTask, EncodeMetadata(Container::kTask, Gemma()));
  ASSERT_THAT(decoded, Succeeds());
  EXPECT_EQ(*decoded, expected);
}

TEST(MetadataTest, TokensWithOnlyOneSpellingAreWrittenInThatOne) {
  BundleMetadata metadata = Gemma();
  metadata.start_token = TextOnly("<bos>");
  metadata.stop_tokens = {IdOnly(0), TextOnly("stop")};
  for (const Container container : {Container::kTask, Container::kLitertlm}) {
    const Result<BundleMetadata> decoded = DecodeText(container, EncodeMetadata(container, metadata));
    ASSERT_THAT(decoded, Succeeds());
    EXPECT_EQ(decoded->start_token, metadata.start_token);
    // LlmParameters keeps texts and ids in two lists.
    EXPECT_THAT(decoded->stop_tokens, testing::UnorderedElementsAreArray(metadata.stop_tokens));
  }
  metadata.start_token.reset();
  metadata.user = metadata.model = {};
  for (const Container container : {Container::kTask, Container::kLitertlm}) {
    const Result<BundleMetadata> decoded = DecodeText(container, EncodeMetadata(container, metadata));
    ASSERT_THAT(decoded, Succeeds());
    EXPECT_FALSE(decoded->start_token.has_value());
    EXPECT_EQ(decoded->user, TurnAffixes{});
  }
}

TEST(MetadataTest, EveryModelTypeOfTheClientIsNamed) {
  for (const char* name : {"gemma3n", "generic_model", "function_gemma", "gemma3", "qwen3", "qwen2p5", "gemma4", "fast_vlm", "lfm2",
                           "minicpm5", "minicpmv4"}) {
    BundleMetadata metadata = Gemma();
    metadata.model_type = name;
    EXPECT_EQ(DecodeText(Container::kLitertlm, EncodeMetadata(Container::kLitertlm, metadata))->model_type, name);
  }
  BundleMetadata metadata = Gemma();
  metadata.model_type = "";
  EXPECT_EQ(DecodeText(Container::kLitertlm, EncodeMetadata(Container::kLitertlm, metadata))->model_type, "");
  // A type newer than our list: field 6 holds {14: {}}.
  EXPECT_EQ(DecodeText(Container::kLitertlm, std::string("\x28\x08\x32\x02\x72\x00", 6))->model_type, "unknown");
}

TEST(MetadataTest, ATaskMayHoldLlmMetadataWithAStartToken) {
  BundleMetadata metadata = Gemma();
  const Result<BundleMetadata> decoded = DecodeText(Container::kTask, EncodeMetadata(Container::kLitertlm, metadata));
  ASSERT_THAT(decoded, Succeeds());
  EXPECT_EQ(decoded->start_token, IdOnly(2));
  EXPECT_EQ(decoded->max_num_tokens, 4096);
  // Without one the client takes the bytes for LlmParameters, where these fields have other meanings.
  metadata.start_token.reset();
  const Result<BundleMetadata> misread = DecodeText(Container::kTask, EncodeMetadata(Container::kLitertlm, metadata));
  if (misread) {
    EXPECT_EQ(misread->max_num_tokens, 0);
  }
}

TEST(MetadataTest, TransformerParametersInFieldOneAreNotTakenForAStartToken) {
  // LlmParameters field 1 is a message of settings: {1: 1 (varint)} parses as a TokenUnion that holds nothing. With ids instead of texts
  // all other fields parse as LlmMetadata, too.
  BundleMetadata metadata = Gemma();
  metadata.start_token = IdOnly(2);
  metadata.stop_tokens = {IdOnly(106)};
  const std::string message = std::string("\x0a\x02\x08\x01") + EncodeMetadata(Container::kTask, metadata);
  const Result<BundleMetadata> decoded = DecodeText(Container::kTask, message);
  ASSERT_THAT(decoded, Succeeds());
  EXPECT_EQ(decoded->start_token, IdOnly(2));
  EXPECT_THAT(decoded->stop_tokens, testing::ElementsAre(IdOnly(106)));
}

TEST(MetadataTest, TheOlderPromptTemplateGivesTheSameTurn) {
  proto::LlmParameters message;
  message.set_start_token("<bos>");
  message.mutable_prompt_template()->set_prompt_prefix("<user>");
  message.mutable_prompt_template()->set_prompt_suffix("</user><model>");
  const Result<BundleMetadata> decoded = DecodeText(Container::kTask, message.SerializeAsString());
  ASSERT_THAT(decoded, Succeeds());
  EXPECT_EQ(decoded->user, (TurnAffixes{"<user>", "</user><model>"}));
  EXPECT_EQ(decoded->model, TurnAffixes{});
}

TEST(MetadataTest, UnknownFieldsAreSkipped) {
  const std::string extra = std::string("\x3a\x03jnj") + "\x98\x06\x07";  // 7: jinja template, 99: varint
  const Result<BundleMetadata> decoded = DecodeText(Container::kLitertlm, EncodeMetadata(Container::kLitertlm, Gemma()) + extra);
  ASSERT_THAT(decoded, Succeeds());
  EXPECT_EQ(decoded->model_type, "gemma3n");
}

TEST(MetadataTest, AMessageWithoutSamplerMeansGreedy) {
  proto::LlmMetadata message;
  message.set_max_num_tokens(7);
  EXPECT_EQ(DecodeText(Container::kLitertlm, message.SerializeAsString())->sampler, kGreedy);
  message.mutable_sampler_params()->set_k(9);  // type unspecified
  EXPECT_EQ(DecodeText(Container::kLitertlm, message.SerializeAsString())->sampler, kGreedy);
}

TEST(MetadataTest, SamplersThatStopTheClientAreLint) {
  for (const int type : {1, 3, 9}) {
    proto::LlmMetadata message;
    message.set_max_num_tokens(7);
    message.mutable_sampler_params()->set_type(static_cast<proto::SamplerParameters::Type>(type));
    EXPECT_THAT(DecodeText(Container::kLitertlm, message.SerializeAsString()),
                Fails(ErrorCode::kMetadataLint, Format("Sampler type: {} not implemented yet", type)));
  }
  const auto with = [](SamplerSettings sampler) {
    BundleMetadata metadata = Gemma();
    metadata.sampler = sampler;
    return DecodeText(Container::kLitertlm, EncodeMetadata(Container::kLitertlm, metadata));
  };
  EXPECT_THAT(with({.k = 1, .p = 0, .temperature = 0}), Succeeds());
  EXPECT_THAT(with({.k = 0}), Fails(ErrorCode::kMetadataLint, "sampler k 0"));
  EXPECT_THAT(with({.p = 1.5F}), Fails(ErrorCode::kMetadataLint, "p 1.5"));
  EXPECT_THAT(with({.p = std::numeric_limits<float>::quiet_NaN()}), Fails(ErrorCode::kMetadataLint, "p nan"));
  EXPECT_THAT(with({.temperature = -1}), Fails(ErrorCode::kMetadataLint, "temperature -1"));
  EXPECT_THAT(with({.temperature = std::numeric_limits<float>::infinity()}), Fails(ErrorCode::kMetadataLint, "temperature inf"));
  BundleMetadata metadata = Gemma();
  metadata.max_num_tokens = -5;
  EXPECT_THAT(DecodeText(Container::kLitertlm, EncodeMetadata(Container::kLitertlm, metadata)),
              Fails(ErrorCode::kMetadataLint, "max_num_tokens is -5"));
}

TEST(MetadataTest, LiesAreRefused) {
  struct Lie {
    std::string_view what;
    Container container;
    std::string bytes;
    ErrorCode code;
    std::string_view message;
  };
  const std::vector<Lie> lies = {
      {"nothing", Container::kLitertlm, "", ErrorCode::kMetadataMalformed, "none of the known fields"},
      {"nothing", Container::kTask, "", ErrorCode::kMetadataMalformed, "none of the known fields"},
      {"garbage", Container::kLitertlm, "this is no protobuf", ErrorCode::kMetadataMalformed, "not an LlmMetadata"},
      {"garbage", Container::kTask, "this is no protobuf", ErrorCode::kMetadataMalformed, "neither LlmMetadata nor"},
      {"only unknown fields", Container::kLitertlm, "\x98\x06\x07", ErrorCode::kMetadataMalformed, "none of the known fields"},
      {"empty start token", Container::kLitertlm, std::string("\x0a\x00", 2), ErrorCode::kMetadataMalformed, "start_token holds neither"},
      {"empty start text", Container::kLitertlm, std::string("\x0a\x02\x12\x00", 4), ErrorCode::kMetadataMalformed,
       "start_token is an empty text"},
      {"no ids", Container::kLitertlm, std::string("\x12\x02\x0a\x00", 4), ErrorCode::kMetadataMalformed, "stop_tokens holds neither"},
      {"negative id", Container::kLitertlm, "\x12\x0e\x0a\x0c\x0a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
       ErrorCode::kMetadataMalformed, "id -1"},
      {"two ids", Container::kLitertlm, "\x12\x06\x0a\x04\x0a\x02\x05\x06", ErrorCode::kMetadataUnsupported, "sequence of 2 tokens"},
      {"text not UTF-8", Container::kLitertlm, "\x12\x04\x12\x02\xc3(", ErrorCode::kMetadataMalformed, "not UTF-8"},
      {"affix not UTF-8", Container::kLitertlm, "\x1a\x05\x0a\x03\x0a\x01\xff", ErrorCode::kMetadataMalformed, "prompt_templates.user"},
      {"stop text not UTF-8", Container::kTask, "\x2a\x01\xff", ErrorCode::kMetadataMalformed, "not UTF-8"},
      {"empty stop text", Container::kTask, std::string("\x2a\x00", 2), ErrorCode::kMetadataMalformed, "empty text"},
      {"length behind the end", Container::kTask, "\x2a\x7f", ErrorCode::kMetadataMalformed, "neither"},
  };
  for (const Lie& lie : lies) EXPECT_THAT(DecodeText(lie.container, lie.bytes), Fails(lie.code, lie.message)) << lie.what;
  EXPECT_THAT(DecodeText(Container::kTask, std::string((16 << 20) + 1, '\0')), Fails(ErrorCode::kMetadataMalformed, "at most 16777216"));
}

TEST(MetadataTest, EveryTruncationIsAnErrorOrAPrefixOfTheMessage) {
  for (const Container container : {Container::kTask, Container::kLitertlm}) {
    const std::string whole = EncodeMetadata(container, Gemma());
    size_t refused = 0;
    for (size_t size = 0; size < whole.size(); ++size) {
      const Result<BundleMetadata> decoded = DecodeText(container, std::string_view(whole).substr(0, size));
      if (!decoded) {
        EXPECT_EQ(InfoOf(decoded.error().code).status, ExitStatus::kMalformed) << size;
        ++refused;
        continue;
      }
      // A protobuf message may end after any field.
      EXPECT_LE(decoded->stop_tokens.size(), 2U);
    }
    EXPECT_GE(refused, whole.size() - 8) << "only cuts between the top-level fields can go unnoticed";
  }
}

}  // namespace
}  // namespace taskpress
