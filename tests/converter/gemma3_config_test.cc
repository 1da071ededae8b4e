#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "converter/model_family.h"
#include "converter/text_config.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// As published for the 270M model.
Json Small() {
  return {{"_sliding_window_pattern", 6},
          {"architectures", {"Gemma3ForCausalLM"}},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"attn_logit_softcapping", nullptr},
          {"bos_token_id", 2},
          {"eos_token_id", 1},
          {"final_logit_softcapping", nullptr},
          {"head_dim", 256},
          {"hidden_activation", "gelu_pytorch_tanh"},
          {"hidden_size", 640},
          {"initializer_range", 0.02},
          {"intermediate_size", 2048},
          {"max_position_embeddings", 32768},
          {"model_type", "gemma3_text"},
          {"num_attention_heads", 4},
          {"num_hidden_layers", 18},
          {"num_key_value_heads", 1},
          {"pad_token_id", 0},
          {"query_pre_attn_scalar", 256},
          {"rms_norm_eps", 1e-06},
          {"rope_local_base_freq", 10000.0},
          {"rope_scaling", nullptr},
          {"rope_theta", 1000000.0},
          {"sliding_window", 512},
          {"torch_dtype", "bfloat16"},
          {"transformers_version", "4.55.0.dev0"},
          {"use_bidirectional_attention", false},
          {"use_cache", true},
          {"vocab_size", 262144}};
}

// The published 4B model: vision around a text_config that leaves most to its reader.
Json Large() {
  return {{"model_type", "gemma3"},
          {"image_token_index", 262144},
          {"boi_token_index", 255999},
          {"vision_config", Json::object()},
          {"text_config",
           {{"hidden_size", 2560},
            {"intermediate_size", 10240},
            {"model_type", "gemma3_text"},
            {"num_hidden_layers", 34},
            {"rope_scaling", {{"factor", 8.0}, {"rope_type", "linear"}}},
            {"sliding_window", 1024}}}};
}

TEST(Gemma3ConfigTest, ReadsTheSmallModel) {
  const Result<TextConfig> config = ParseTextConfig(Small());
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->family->name, "gemma3");
  EXPECT_EQ(config->vocab_size, 262144);
  EXPECT_EQ(config->text_vocab_size, 262144);
  EXPECT_EQ(config->intermediate_size, std::vector<int64_t>(18, 2048));
  EXPECT_EQ(config->query_pre_attn_scalar, 256);
  EXPECT_EQ(config->final_logit_softcapping, 0);
  EXPECT_EQ(config->first_kv_shared_layer(), 18) << "every layer owns its keys and values";
  for (size_t layer = 0; layer < 18; ++layer) {
    EXPECT_EQ(config->layer_types[layer], (layer + 1) % 6 == 0 ? LayerType::kFull : LayerType::kSliding) << layer;
  }
  EXPECT_THAT(config->notes, IsEmpty());
}

TEST(Gemma3ConfigTest, FillsTheLargeModelsGapsAsTransformersDoes) {
  const Result<TextConfig> config = ParseTextConfig(Large());
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->vocab_size, 262208);
  EXPECT_EQ(config->text_vocab_size, 262144) << "ids from the image token on are no text";
  EXPECT_EQ(config->num_attention_heads, 8);
  EXPECT_EQ(config->num_key_value_heads, 4);
  EXPECT_EQ(config->head_dim, 256);
  EXPECT_EQ(config->rms_norm_eps, 1e-6);
  EXPECT_EQ(config->max_position_embeddings, 131072);
  EXPECT_EQ(config->rope_theta, 1e6);
  EXPECT_EQ(config->rope_local_base_freq, 1e4);
  EXPECT_EQ(config->rope_linear_factor, 8);
  EXPECT_EQ(config->query_pre_attn_scalar, 256);
}

TEST(Gemma3ConfigTest, ReadsRopeParametersOfNewerFiles) {
  Json json = Small();
  json.erase("rope_theta");
  json.erase("rope_local_base_freq");
  json.erase("rope_scaling");
  json["rope_parameters"] = {{"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 1e6}}},
                             {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}}};
  const Result<TextConfig> config = ParseTextConfig(json);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->rope_theta, 1e6);
  EXPECT_EQ(config->rope_local_base_freq, 1e4);
  EXPECT_EQ(config->rope_linear_factor, 8);
}

struct Lie {
  const char* field;
  Json value;
  ErrorCode code;
  const char* message;
};

TEST(Gemma3ConfigTest, RefusesWhatItCannotConvert) {
  for (const Lie& lie : {
           Lie{"final_logit_softcapping", 30.0, ErrorCode::kConfigUnsupported, "final_logit_softcapping"},
           Lie{"attn_logit_softcapping", 50.0, ErrorCode::kConfigUnsupported, "attn_logit_softcapping"},
           Lie{"use_bidirectional_attention", true, ErrorCode::kConfigUnsupported, "use_bidirectional_attention"},
           Lie{"tie_word_embeddings", false, ErrorCode::kConfigUnsupported, "tie_word_embeddings"},
           Lie{"rope_scaling", {{"rope_type", "yarn"}}, ErrorCode::kConfigUnsupported, "yarn"},
           Lie{"rope_scaling", {{"rope_type", "linear"}}, ErrorCode::kConfigField, "factor"},
           Lie{"rope_scaling", 8, ErrorCode::kConfigField, "rope_scaling"},
           Lie{"query_pre_attn_scalar", 0, ErrorCode::kConfigField, "query_pre_attn_scalar"},
           Lie{"num_hidden_layers", 1 << 20, ErrorCode::kConfigField, "num_hidden_layers"},
           Lie{"_sliding_window_pattern", 0, ErrorCode::kConfigField, "_sliding_window_pattern"},
           Lie{"layer_types", {"sliding_attention"}, ErrorCode::kConfigField, "layer_types"},
           Lie{"hidden_size", nullptr, ErrorCode::kConfigField, "hidden_size"},
           Lie{"model_type", "gemma2", ErrorCode::kModelTypeUnsupported, "gemma3_text"},
       }) {
    Json json = Small();
    json[lie.field] = lie.value;
    const Result<TextConfig> config = ParseTextConfig(json);
    ASSERT_FALSE(config.has_value()) << lie.field;
    EXPECT_EQ(InfoOf(config.error().code).name, InfoOf(lie.code).name) << config.error().message;
    EXPECT_THAT(config.error().message, HasSubstr(lie.message));
  }
}

}  // namespace
}  // namespace taskpress
