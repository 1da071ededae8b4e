#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "converter/text_config.h"
#include "schema/base/error.h"
#include "tests/testing/checkpoint_generator.h"
#include "tests/testing/memory_checkpoint.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::TinyConfigJson;

const std::filesystem::path kMicro = std::filesystem::path(TASKPRESS_TEST_DATA) / "micro-e4b" / "config.json";

TextConfig MustParse(const Json& json) {
  Result<TextConfig> config = ParseTextConfig(json);
  if (config) return *std::move(config);
  ADD_FAILURE() << config.error().message;
  return {};
}

Json Preset(std::string_view name) { return Json::parse(PresetConfig(name).value().dump()); }

TEST(Gemma3nConfigTest, ReadsTheMicroCheckpoint) {
  const Result<TextConfig> config = ReadTextConfig(kMicro);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->vocab_size, 2304);
  EXPECT_EQ(config->text_vocab_size, 2048);
  EXPECT_EQ(config->hidden_size, 128);
  EXPECT_EQ(config->hidden_size_per_layer_input, 16);
  EXPECT_EQ(config->num_hidden_layers, 15);
  EXPECT_THAT(config->intermediate_size, Each(512));
  EXPECT_EQ(config->num_attention_heads, 4);
  EXPECT_EQ(config->num_key_value_heads, 2);
  EXPECT_EQ(config->head_dim, 32);
  EXPECT_EQ(config->sliding_window, 32);
  EXPECT_EQ(config->rope_theta, 1e6);
  EXPECT_EQ(config->rope_local_base_freq, 1e4);
  EXPECT_EQ(config->final_logit_softcapping, 30.0);
  EXPECT_EQ(config->altup_num_inputs, 4);
  EXPECT_EQ(config->altup_coef_clip, 120.0);
  EXPECT_EQ(config->laurel_rank, 16);
  EXPECT_EQ(config->first_kv_shared_layer(), 10);
  EXPECT_EQ(config->activation_sparsity_pattern[4], 0.95);
  EXPECT_EQ(config->activation_sparsity_pattern[5], 0.0);
  EXPECT_THAT(config->notes, IsEmpty()) << "every field of a published config is known";
}

TEST(Gemma3nConfigTest, SharedLayersReadTheLastOwningLayerOfTheirType) {
  for (const std::string_view name : {"e2b", "e4b"}) {
    const TextConfig config = MustParse(Preset(name));
    EXPECT_EQ(config.first_kv_shared_layer(), 20);
    for (int64_t layer = 0; layer < 20; ++layer) EXPECT_EQ(config.kv_source_layer(layer), layer);
    for (int64_t layer = 20; layer < config.num_hidden_layers; ++layer) {
      EXPECT_EQ(config.kv_source_layer(layer), (layer + 1) % 5 == 0 ? 19 : 18) << layer;
    }
  }
}

TEST(Gemma3nConfigTest, LayerTypesFollowThePublishedPatternWhenTheFileHasNone) {
  Json json = Preset("e2b")["text_config"];
  json.erase("layer_types");
  EXPECT_EQ(MustParse(json).layer_types, MustParse(Preset("e2b")).layer_types);
}

TEST(Gemma3nConfigTest, AcceptsOneValueOrOnePerLayer) {
  Json json = TinyConfigJson();
  json["intermediate_size"] = 32;
  json["activation_sparsity_pattern"] = 0.5;
  const TextConfig config = MustParse(json);
  EXPECT_THAT(config.intermediate_size, ElementsAre(32, 32));
  EXPECT_THAT(config.activation_sparsity_pattern, ElementsAre(0.5, 0.5));
}

TEST(Gemma3nConfigTest, NullMeansNoneWhereTransformersSaysSo) {
  Json json = TinyConfigJson();
  json["final_logit_softcapping"] = nullptr;
  json["altup_coef_clip"] = nullptr;
  const TextConfig config = MustParse(json);
  EXPECT_EQ(config.final_logit_softcapping, 0);
  EXPECT_EQ(config.altup_coef_clip, 0);
}

TEST(Gemma3nConfigTest, BothSpellingsOfTheRotaryBasesAreRead) {
  Json json = TinyConfigJson();
  json.erase("rope_theta");
  json.erase("rope_local_base_freq");
  json["rope_parameters"] = {{"full_attention", {{"rope_theta", 5e5}, {"rope_type", "default"}}},
                             {"sliding_attention", {{"rope_theta", 2e4}}}};
  const TextConfig config = MustParse(json);
  EXPECT_EQ(config.rope_theta, 5e5);
  EXPECT_EQ(config.rope_local_base_freq, 2e4);
}

TEST(Gemma3nConfigTest, FieldsNobodyKnowsBecomeNotes) {
  Json json = TinyConfigJson();
  json["new_in_2027"] = 1;
  json["query_pre_attn_scalar"] = 256;
  EXPECT_THAT(MustParse(json).notes, ElementsAre("config field new_in_2027 is not known and not used"));
}

struct Lie {
  std::string field;
  Json value;
  std::string message;
};

// Integers: absent, null, of other types, below and above their bounds, and so large that they would wrap.
TEST(Gemma3nConfigTest, EveryIntegerIsBounded) {
  struct Field {
    const char* name;
    int64_t low;
    int64_t high;
  };
  for (const Field& field : std::vector<Field>{{"vocab_size", 1, 1 << 20},
                                               {"vocab_size_per_layer_input", 1, 1 << 20},
                                               {"hidden_size", 2, 1 << 17},
                                               {"hidden_size_per_layer_input", 2, 1 << 17},
                                               {"num_hidden_layers", 1, 256},
                                               {"num_attention_heads", 1, 1024},
                                               {"num_key_value_heads", 1, 1024},
                                               {"head_dim", 2, 4096},
                                               {"max_position_embeddings", 1, 1 << 24},
                                               {"sliding_window", 1, 1 << 24},
                                               {"laurel_rank", 2, 1 << 17},
                                               {"altup_num_inputs", 2, 16},
                                               {"num_kv_shared_layers", 0, 256}}) {
    for (const Json& value : std::vector<Json>{nullptr, "8", 8.0, true, Json::array({8}), Json::object(), field.low - 1, field.high + 1,
                                               INT64_MAX, INT64_MIN, UINT64_MAX, 1e300}) {
      Json json = TinyConfigJson();
      json[field.name] = value;
      const Result<TextConfig> config = ParseTextConfig(json);
      ASSERT_FALSE(config.has_value()) << field.name << " = " << value;
      EXPECT_EQ(config.error().code, ErrorCode::kConfigField);
      EXPECT_THAT(config.error().message, HasSubstr(Format("config.{}: ", field.name)));
    }
    Json json = TinyConfigJson();
    json.erase(field.name);
    EXPECT_THAT(ParseTextConfig(json).error().message, HasSubstr(Format("config.{}: missing", field.name)));
  }
}

TEST(Gemma3nConfigTest, EveryOtherFieldIsChecked) {
  const std::vector<Lie> lies = {
      {"rms_norm_eps", nullptr, "rms_norm_eps: missing"},
      {"rms_norm_eps", 0, "rms_norm_eps: a number from"},
      {"rms_norm_eps", -1e-6, "rms_norm_eps: a number from"},
      {"rms_norm_eps", "1e-6", "rms_norm_eps: a number from"},
      {"rope_theta", nullptr, "rope_theta: missing"},
      {"rope_theta", 0.5, "rope_theta: a number from"},
      {"rope_local_base_freq", 1e13, "rope_local_base_freq: a number from"},
      {"final_logit_softcapping", 0, "final_logit_softcapping: a number from"},
      {"final_logit_softcapping", "30", "final_logit_softcapping: a number from"},
      {"altup_coef_clip", 0, "altup_coef_clip: a number from"},
      {"altup_coef_clip", -120.0, "altup_coef_clip: a number from"},
      {"altup_correct_scale", nullptr, "altup_correct_scale: missing"},
      {"altup_correct_scale", 1, "altup_correct_scale: true or false"},
      {"altup_active_idx", 16, "altup_active_idx: an integer from"},
      {"intermediate_size", nullptr, "intermediate_size: missing"},
      {"intermediate_size", {16}, "intermediate_size: 1 entries for 2 layers"},
      {"intermediate_size", {16, 16, 16}, "intermediate_size: 3 entries for 2 layers"},
      {"intermediate_size", {16, 0}, "intermediate_size[1]: an integer from"},
      {"intermediate_size", {16, "16"}, "intermediate_size[1]: an integer from"},
      {"intermediate_size", 1LL << 40, "intermediate_size[0]: an integer from"},
      {"intermediate_size", "16", "intermediate_size[0]: an integer from"},
      {"activation_sparsity_pattern", nullptr, "activation_sparsity_pattern: missing"},
      {"activation_sparsity_pattern", {0.95}, "activation_sparsity_pattern: 1 entries"},
      {"activation_sparsity_pattern", {0.95, 1.0}, "activation_sparsity_pattern[1]: a number from"},
      {"activation_sparsity_pattern", {-0.1, 0.0}, "activation_sparsity_pattern[0]: a number from"},
      {"activation_sparsity_pattern", {nullptr, 0.0}, "activation_sparsity_pattern[0]: a number from"},
      {"layer_types", {"full_attention"}, "layer_types: 1 entries for 2 layers"},
      {"layer_types", {"full_attention", "linear_attention"}, "layer_types: unknown type \"linear_attention\""},
      {"layer_types", {"full_attention", 1}, "layer_types: a list of strings"},
      {"layer_types", "full_attention", "layer_types: a list of strings"},
      {"num_kv_shared_layers", 2, "no layer is left"},
      {"num_kv_shared_layers", 1, "no owning layer below it has its type"},
      {"num_attention_heads", 3, "num_attention_heads: 3 is not a multiple of num_key_value_heads 2"},
      {"head_dim", 5, "head_dim: must be even"},
      {"vocab_size_per_layer_input", 13, "vocab_size_per_layer_input: larger than vocab_size"},
      {"rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}}, "rope_parameters: lacks \"sliding_attention\""},
      {"rope_parameters", 7, "rope_parameters: lacks \"full_attention\""},
      {"rope_parameters",
       {{"full_attention", {{"rope_theta", 1e6}}}, {"sliding_attention", {{"rope_theta", 2e4}}}},
       "rope_local_base_freq: 10000 contradicts rope_parameters.sliding_attention, 20000"},
      {"rope_parameters",
       {{"full_attention", {{"rope_theta", "x"}}}, {"sliding_attention", {{"rope_theta", 1e4}}}},
       "rope_parameters.full_attention.rope_theta: a number from"},
      {"hidden_activation", 5, "hidden_activation: a string"},
  };
  for (const Lie& lie : lies) {
    Json json = TinyConfigJson();
    if (lie.field == "num_attention_heads") json["num_key_value_heads"] = 2;
    json[lie.field] = lie.value;
    const Result<TextConfig> config = ParseTextConfig(json);
    ASSERT_FALSE(config.has_value()) << lie.field << " = " << lie.value;
    EXPECT_EQ(config.error().code, ErrorCode::kConfigField) << config.error().message;
    EXPECT_THAT(config.error().message, HasSubstr(lie.message));
  }
}

TEST(Gemma3nConfigTest, WhatTheModelDoesNotHaveIsUnsupported) {
  const std::vector<Lie> lies = {
      {"hidden_activation", "silu", "hidden_activation: only \"gelu_pytorch_tanh\""},
      {"attention_bias", true, "attention_bias: only false"},
      {"tie_word_embeddings", false, "tie_word_embeddings: only true"},
      {"altup_active_idx", 1, "altup_active_idx: only 0"},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 8}}, "rope_scaling.rope_type: \"yarn\""},
      {"rope_parameters",
       {{"full_attention", {{"rope_theta", 1e6}, {"rope_type", "yarn"}}}, {"sliding_attention", {{"rope_theta", 1e4}}}},
       "rope_parameters.full_attention.rope_type: \"yarn\""},
      {"rope_parameters",
       {{"full_attention", {{"rope_theta", 1e6}}}, {"sliding_attention", {{"rope_theta", 1e4}, {"factor", 2}}}},
       "rope_parameters.sliding_attention.factor: not understood"},
  };
  for (const Lie& lie : lies) {
    Json json = TinyConfigJson();
    json[lie.field] = lie.value;
    const Result<TextConfig> config = ParseTextConfig(json);
    ASSERT_FALSE(config.has_value()) << lie.field << " = " << lie.value;
    EXPECT_EQ(config.error().code, ErrorCode::kConfigUnsupported) << config.error().message;
    EXPECT_THAT(config.error().message, HasSubstr(lie.message));
  }
}

TEST(Gemma3nConfigTest, OtherModelsAreNamed) {
  for (const Json& type : std::vector<Json>{"gemma2", "llama", "", nullptr, 3}) {
    Json json = TinyConfigJson();
    json["model_type"] = type;
    EXPECT_EQ(ParseTextConfig(json).error().code, ErrorCode::kModelTypeUnsupported) << type;
  }
  EXPECT_THAT(ParseTextConfig({{"model_type", "a\x1b[2J"}}).error().message, HasSubstr("\"a\\x1b[2J\""));
  Json nested = {{"model_type", "gemma3n"}, {"text_config", TinyConfigJson()}};
  EXPECT_TRUE(ParseTextConfig(nested).has_value());
  nested["text_config"]["model_type"] = "gemma2";
  EXPECT_THAT(ParseTextConfig(nested).error().message, HasSubstr("text_config.model_type: only \"gemma3n_text\""));
  nested["text_config"] = 5;
  EXPECT_EQ(ParseTextConfig(nested).error().code, ErrorCode::kConfigField);
  nested.erase("text_config");
  EXPECT_EQ(ParseTextConfig(nested).error().code, ErrorCode::kConfigField);
  EXPECT_EQ(ParseTextConfig(Json::array()).error().code, ErrorCode::kConfigField);
}

TEST(Gemma3nConfigTest, AllProblemsAreListedAtOnce) {
  Json json = TinyConfigJson();
  json["hidden_size"] = "8";
  json["head_dim"] = 5;
  json["laurel_rank"] = nullptr;
  json["layer_types"] = {"full_attention"};
  EXPECT_EQ(ParseTextConfig(json).error().message,
            "config.hidden_size: an integer from 2 to 131072 is needed, found \"8\"; "
            "config.head_dim: must be even for rotary embeddings; "
            "config.laurel_rank: missing; "
            "config.layer_types: 1 entries for 2 layers");
}

TEST(Gemma3nConfigTest, WithoutTheNumberOfLayersItsListsAreNotBlamed) {
  Json json = TinyConfigJson();
  json["num_hidden_layers"] = "two";
  EXPECT_EQ(ParseTextConfig(json).error().message, "config.num_hidden_layers: an integer from 1 to 256 is needed, found \"two\"");
}

TEST(Gemma3nConfigTest, HostileValuesAreShownShortAndPrintable) {
  Json json = TinyConfigJson();
  json["hidden_size"] = std::string(100'000, '\x07');
  const std::string message = ParseTextConfig(json).error().message;
  EXPECT_LT(message.size(), 500U);
  EXPECT_THAT(message, Not(HasSubstr("\x07")));
}

TEST(Gemma3nConfigTest, AnErrorInAFileNamesTheFile) {
  const TempFolder folder;
  const std::filesystem::path path = folder.Write("config.json", R"({"model_type": "llama"})");
  EXPECT_THAT(ReadTextConfig(path).error().message, HasSubstr(path.string()));
  const std::filesystem::path infinite = folder.Write("infinite.json", R"({"model_type": "gemma3n_text", "rms_norm_eps": 1e999})");
  EXPECT_EQ(ReadTextConfig(infinite).error().code, ErrorCode::kBadJson);
}

}  // namespace
}  // namespace taskpress
