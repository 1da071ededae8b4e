#include "converter/gguf_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "converter/model_family.h"
#include "converter/tokenizer_files.h"
#include "schema/tokenizer.h"
#include "tests/testing/raw_files.h"
#include "tests/testing/raw_gguf.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::filesystem::path kMicro = std::filesystem::path(TASKPRESS_TEST_DATA) / "micro-e4b";

const RawGguf& Micro() {
  static const RawGguf kGguf = GgufOfGemma3n(kMicro, /*pad_tables=*/false);
  return kGguf;
}

struct Opened {
  TempFolder folder;
  Result<std::unique_ptr<ModelFiles>> files;
  explicit Opened(const RawGguf& gguf) : files(OpenModelFiles(folder.Write("model.gguf", gguf.Bytes()))) {}
};

std::vector<float> ReadBlock(const Checkpoint& checkpoint, std::string_view name, const RowBlock& block) {
  std::vector<float> values(static_cast<size_t>(block.num_rows * block.num_columns));
  const CheckpointTensor* tensor = checkpoint.Find(name);
  if (tensor == nullptr) {
    ADD_FAILURE() << "no tensor " << name;
    return {};
  }
  const Status read = checkpoint.ReadRows(*tensor, block, values);
  EXPECT_TRUE(read.has_value()) << read.error().message;
  return values;
}

std::vector<float> ReadAll(const Checkpoint& checkpoint, const CheckpointTensor& tensor) {
  return ReadBlock(checkpoint, tensor.name,
                   {.first_row = 0, .num_rows = MatrixRows(tensor.shape), .first_column = 0, .num_columns = MatrixColumns(tensor.shape)});
}

class MicroGguf : public ::testing::TestWithParam<bool> {};

TEST_P(MicroGguf, HasTheWeightsOfTheFolderBitForBit) {
  const Opened gguf(GgufOfGemma3n(kMicro, GetParam()));
  ASSERT_TRUE(gguf.files.has_value()) << gguf.files.error().message;
  const std::shared_ptr<const Checkpoint> ours = (*gguf.files)->checkpoint();
  const std::unique_ptr<Checkpoint> folder = OpenSafetensorsCheckpoint(kMicro).value();
  size_t compared = 0;
  for (const CheckpointTensor& theirs : folder->tensors()) {
    constexpr std::string_view kPrefix = "model.language_model.";
    if (!theirs.name.starts_with(kPrefix)) continue;
    const CheckpointTensor* tensor = ours->Find("model." + theirs.name.substr(kPrefix.size()));
    ASSERT_NE(tensor, nullptr) << theirs.name;
    ASSERT_EQ(tensor->shape, theirs.shape) << theirs.name;
    ASSERT_EQ(ReadAll(*ours, *tensor), ReadAll(*folder, theirs)) << theirs.name;
    ++compared;
  }
  EXPECT_EQ(compared, ours->tensors().size()) << "and no others";
}

TEST_P(MicroGguf, HasTheConfigOfTheFolder) {
  const Opened gguf(GgufOfGemma3n(kMicro, GetParam()));
  ASSERT_TRUE(gguf.files.has_value()) << gguf.files.error().message;
  const TextConfig ours = (*gguf.files)->ReadConfig().value();
  const TextConfig theirs = ReadTextConfig(kMicro / "config.json").value();
  EXPECT_EQ(ours.family, theirs.family);
  EXPECT_EQ(ours.vocab_size, theirs.vocab_size);
  EXPECT_EQ(ours.text_vocab_size, theirs.text_vocab_size);
  EXPECT_EQ(ours.hidden_size, theirs.hidden_size);
  EXPECT_EQ(ours.intermediate_size, theirs.intermediate_size);
  EXPECT_EQ(ours.num_attention_heads, theirs.num_attention_heads);
  EXPECT_EQ(ours.num_key_value_heads, theirs.num_key_value_heads);
  EXPECT_EQ(ours.head_dim, theirs.head_dim);
  EXPECT_EQ(static_cast<float>(ours.rms_norm_eps), static_cast<float>(theirs.rms_norm_eps));
  EXPECT_EQ(ours.max_position_embeddings, theirs.max_position_embeddings);
  EXPECT_EQ(ours.sliding_window, theirs.sliding_window);
  EXPECT_EQ(ours.layer_types, theirs.layer_types);
  EXPECT_EQ(ours.rope_theta, theirs.rope_theta);
  EXPECT_EQ(ours.rope_local_base_freq, theirs.rope_local_base_freq);
  EXPECT_EQ(ours.final_logit_softcapping, theirs.final_logit_softcapping);
  EXPECT_EQ(ours.num_kv_shared_layers, theirs.num_kv_shared_layers);
  EXPECT_EQ(ours.hidden_size_per_layer_input, theirs.hidden_size_per_layer_input);
  EXPECT_EQ(ours.altup_num_inputs, theirs.altup_num_inputs);
  EXPECT_EQ(ours.altup_coef_clip, theirs.altup_coef_clip);
  EXPECT_EQ(ours.altup_correct_scale, theirs.altup_correct_scale);
  EXPECT_EQ(ours.laurel_rank, theirs.laurel_rank);
  EXPECT_EQ(ours.activation_sparsity_pattern, theirs.activation_sparsity_pattern);
}

INSTANTIATE_TEST_SUITE_P(Tables, MicroGguf, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "PaddedWithZeroRows" : "AsStored"; });

Tokenizer TokenizerOf(const SharedBytes& bytes) {
  std::vector<std::byte> scratch;
  return Tokenizer::FromModel(ViewOrRead(*bytes, scratch).value()).value();
}

TEST(GgufTokenizerTest, GivesTheIdsOfTheModelItWasMadeFrom) {
  const Opened gguf(Micro());
  ASSERT_TRUE(gguf.files.has_value()) << gguf.files.error().message;
  const Result<SharedBytes> rebuilt = (*gguf.files)->ReadTokenizer();
  ASSERT_TRUE(rebuilt.has_value()) << rebuilt.error().message;
  const Tokenizer ours = TokenizerOf(*rebuilt);
  const Tokenizer theirs = TokenizerOf(LoadTokenizerModel(kMicro).value());
  ASSERT_EQ(ours.vocab_size(), theirs.vocab_size());
  for (const char* text : {"In the beginning God created the heaven and the earth.", "  two  spaces\tand a tab\n\n\nlines",
                           "<start_of_turn>user\nhi<end_of_turn>\n<bos>", "naïve Ωμέγα 東京 😀", "int main() { return 0; }", ""}) {
    EXPECT_EQ(ours.Encode(text).value(), theirs.Encode(text).value()) << text;
  }
}

TEST(GgufChatTest, StartAndStopTokensComeFromTheMetadata) {
  RawGguf raw = Micro();
  const Opened base(raw);
  ASSERT_TRUE(base.files.has_value()) << base.files.error().message;
  const Tokenizer tokenizer = TokenizerOf((*base.files)->ReadTokenizer().value());
  const Result<ChatMetadata> chat = MakeChatMetadata((*base.files)->ReadChat().value(), tokenizer);
  ASSERT_TRUE(chat.has_value()) << chat.error().message;
  EXPECT_EQ(chat->metadata.start_token->text, "<bos>");
  ASSERT_EQ(chat->metadata.stop_tokens.size(), 1U);
  EXPECT_EQ(chat->metadata.stop_tokens[0].text, "<eos>");

  raw.metadata.emplace_back(
      "tokenizer.chat_template",
      GgufText("{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] "
               "}}\n{{ m['content'] }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% "
               "endif %}"));
  const Opened tuned(raw);
  const Result<ChatMetadata> turns = MakeChatMetadata((*tuned.files)->ReadChat().value(), tokenizer);
  ASSERT_TRUE(turns.has_value()) << turns.error().message;
  EXPECT_EQ(turns->metadata.user.prefix, "<start_of_turn>user\n");
  ASSERT_EQ(turns->metadata.stop_tokens.size(), 2U);
  EXPECT_EQ(turns->metadata.stop_tokens[1].text, "<end_of_turn>");
}

// A Gemma 3 of one layer, weights of all kinds; enough to be opened.
RawGguf TinyGemma3() {
  RawGguf gguf;
  const auto add = [&gguf](std::string key, std::string value) { gguf.metadata.emplace_back("gemma3." + key, std::move(value)); };
  gguf.metadata.emplace_back("general.architecture", GgufText("gemma3"));
  add("context_length", GgufU32(128));
  add("embedding_length", GgufU32(64));
  add("block_count", GgufU32(1));
  add("feed_forward_length", GgufU32(32));
  add("attention.head_count", GgufU32(2));
  add("attention.head_count_kv", GgufU32(1));
  add("attention.key_length", GgufU32(4));
  add("attention.layer_norm_rms_epsilon", GgufF32(1e-6F));
  add("attention.sliding_window", GgufU32(8));
  add("rope.freq_base", GgufF32(1e6F));
  std::string blocks;
  for (uint8_t i = 0; i < 4; ++i) {  // two rows of two Q8_0 blocks, scale 1, codes 0.. in each block
    blocks += std::string("\x00\x3C", 2);
    for (uint8_t code = 0; code < 32; ++code) blocks += static_cast<char>(code + i);
  }
  gguf.tensors = {{.name = "token_embd.weight", .dimensions = {64, 2}, .type = 8, .bytes = blocks},
                  {.name = "output_norm.weight", .dimensions = {2}, .bytes = RawBytes({1.5F, 0.25F})},
                  {.name = "blk.0.attn_q_norm.weight", .dimensions = {2}, .bytes = RawBytes({3.0F, 1.0F})},
                  {.name = "blk.00.attn_q_norm.weight", .dimensions = {1}, .bytes = RawBytes({3.0F})},
                  {.name = "blk.0.ffn_up.weight", .dimensions = {1}, .bytes = RawBytes({3.0F})},
                  {.name = "output.weight", .dimensions = {1}, .bytes = RawBytes({3.0F})},
                  {.name = "rope_freqs.weight", .dimensions = {1}, .bytes = RawBytes({3.0F})}};
  return gguf;
}

TEST(GgufCheckpointTest, UndoesTheOneInNormsAndNamesWhatItDoesNotKnow) {
  const Opened gguf(TinyGemma3());
  ASSERT_TRUE(gguf.files.has_value()) << gguf.files.error().message;
  const Checkpoint& checkpoint = *(*gguf.files)->checkpoint();
  EXPECT_THAT(ReadBlock(checkpoint, "model.norm.weight", {.num_rows = 1, .num_columns = 2}), ElementsAre(0.5F, -0.75F));
  EXPECT_THAT(ReadBlock(checkpoint, "model.layers.0.self_attn.q_norm.weight", {.num_rows = 1, .num_columns = 2}), ElementsAre(2.0F, 0.0F));
  EXPECT_THAT(ReadBlock(checkpoint, "model.layers.0.mlp.up_proj.weight", {.num_rows = 1, .num_columns = 1}), ElementsAre(3.0F));
  EXPECT_NE(checkpoint.Find("lm_head.weight"), nullptr);
  EXPECT_NE(checkpoint.Find("rope_freqs.weight"), nullptr);
  EXPECT_NE(checkpoint.Find("blk.00.attn_q_norm.weight"), nullptr) << "no second spelling of layer 0";
}

TEST(GgufCheckpointTest, ReadsColumnsAcrossBlocks) {
  const Opened gguf(TinyGemma3());
  ASSERT_TRUE(gguf.files.has_value()) << gguf.files.error().message;
  const Checkpoint& checkpoint = *(*gguf.files)->checkpoint();
  EXPECT_THAT(ReadBlock(checkpoint, "model.embed_tokens.weight", {.first_row = 1, .num_rows = 1, .first_column = 30, .num_columns = 4}),
              ElementsAre(32.0F, 33.0F, 3.0F, 4.0F));
  EXPECT_THAT(ReadBlock(checkpoint, "model.embed_tokens.weight", {.first_row = 0, .num_rows = 2, .first_column = 63, .num_columns = 1}),
              ElementsAre(32.0F, 34.0F));
  std::vector<float> too_many(65);
  EXPECT_FALSE(
      checkpoint.ReadRows(*checkpoint.Find("model.embed_tokens.weight"), {.num_rows = 1, .num_columns = 65}, too_many).has_value());
}

TEST(GgufConfigTest, Gemma3FollowsItsFamilysPatternAndScale) {
  RawGguf raw = TinyGemma3();
  const Opened plain(raw);
  const TextConfig config = (*plain.files)->ReadConfig().value();
  EXPECT_EQ(config.query_pre_attn_scalar, 4);
  EXPECT_EQ(config.layer_types[0], LayerType::kSliding);
  EXPECT_EQ(config.final_logit_softcapping, 0);
  EXPECT_EQ(config.rope_linear_factor, 1);
  raw.metadata.emplace_back("gemma3.rope.scaling.type", GgufText("linear"));
  raw.metadata.emplace_back("gemma3.rope.scaling.factor", GgufF32(8));
  raw.metadata.emplace_back("gemma3.attention.sliding_window_pattern", GgufBools({false}));
  const Opened scaled(raw);
  ASSERT_TRUE(scaled.files.has_value()) << scaled.files.error().message;
  EXPECT_EQ((*scaled.files)->ReadConfig()->rope_linear_factor, 8);
  EXPECT_EQ((*scaled.files)->ReadConfig()->layer_types[0], LayerType::kFull);
}

struct Lie {
  const char* what;
  std::function<void(RawGguf&)> tell;
  ErrorCode code;
  const char* message;
};

void Replace(RawGguf& gguf, std::string_view key, std::string value) {
  for (auto& [name, old] : gguf.metadata) {
    if (name == key) old = std::move(value);
  }
}
void Drop(RawGguf& gguf, std::string_view key) {
  std::erase_if(gguf.metadata, [&](const auto& entry) { return entry.first == key; });
}

class GgufModelLies : public ::testing::TestWithParam<Lie> {};

// Opening finds some of them, reading the tokenizer the others.
TEST_P(GgufModelLies, AreRefused) {
  RawGguf raw = Micro();
  GetParam().tell(raw);
  const Opened gguf(raw);
  Error error;
  if (!gguf.files) {
    error = gguf.files.error();
  } else {
    const Result<SharedBytes> tokenizer = (*gguf.files)->ReadTokenizer();
    ASSERT_FALSE(tokenizer.has_value());
    error = tokenizer.error();
  }
  EXPECT_EQ(InfoOf(error.code).name, InfoOf(GetParam().code).name) << error.message;
  EXPECT_THAT(error.message, HasSubstr(GetParam().message));
  EXPECT_THAT(error.message, HasSubstr("model.gguf")) << "says which file";
}

std::string TextArrayWith(std::string_view bad) {
  std::vector<std::string> tokens(2304);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = "t" + std::to_string(i);
  tokens[300] = bad;
  return GgufTexts(tokens);
}

INSTANTIATE_TEST_SUITE_P(
    Table, GgufModelLies,
    ::testing::Values(
        Lie{"V1_TwoOfAWeight",
            [](RawGguf& g) {
              g.tensors.push_back({.name = "lm_head.weight", .dimensions = {1}, .bytes = RawBytes({1.0F})});
              g.tensors.push_back({.name = "output.weight", .dimensions = {1}, .bytes = RawBytes({1.0F})});
            },
            ErrorCode::kGgufTensor, "both \"lm_head.weight\""},
        Lie{"V5_NoArchitecture", [](RawGguf& g) { Drop(g, "general.architecture"); }, ErrorCode::kGgufHeader, "general.architecture"},
        Lie{"V5_OtherArchitecture", [](RawGguf& g) { Replace(g, "general.architecture", GgufText("llama")); },
            ErrorCode::kModelTypeUnsupported, "llama"},
        Lie{"V5_MissingKey", [](RawGguf& g) { Drop(g, "gemma3n.block_count"); }, ErrorCode::kGgufHeader, "gemma3n.block_count"},
        Lie{"V5_KeyOfAnotherType", [](RawGguf& g) { Replace(g, "gemma3n.block_count", GgufText("15")); }, ErrorCode::kConfigField,
            "num_hidden_layers"},
        Lie{"V5_AbsurdSize", [](RawGguf& g) { Replace(g, "gemma3n.block_count", GgufU32(1U << 31)); }, ErrorCode::kConfigField,
            "num_hidden_layers"},
        Lie{"V6_OtherValueLength", [](RawGguf& g) { Replace(g, "gemma3n.attention.value_length", GgufU32(3)); },
            ErrorCode::kGgufUnsupported, "values of 3"},
        Lie{"V6_RopeScaling", [](RawGguf& g) { g.metadata.emplace_back("gemma3n.rope.scaling.type", GgufText("yarn")); },
            ErrorCode::kGgufUnsupported, "yarn"},
        Lie{"V6_SplitFile", [](RawGguf& g) { g.metadata.emplace_back("split.count", GgufU32(3)); }, ErrorCode::kGgufUnsupported, "split"},
        Lie{"V7_SparsityIsNoNumber", [](RawGguf& g) { Replace(g, "gemma3n.activation_sparsity_scale", GgufTexts({"a"})); },
            ErrorCode::kGgufHeader, "sparsity"},
        Lie{"V7_SharedLayersBrokenNumber", [](RawGguf& g) { Replace(g, "gemma3n.attention.shared_kv_layers", GgufF32(2.5F)); },
            ErrorCode::kConfigField, "num_kv_shared_layers"},
        Lie{"V8_NoPerLayerTable",
            [](RawGguf& g) { std::erase_if(g.tensors, [](const auto& one) { return one.name == "per_layer_token_embd.weight"; }); },
            ErrorCode::kWeightsMismatch, "per_layer_token_embd"},
        Lie{"V9_OtherTokenizer", [](RawGguf& g) { Replace(g, "tokenizer.ggml.model", GgufText("gpt2")); }, ErrorCode::kTokenizerKind,
            "gpt2"},
        Lie{"V9_SpacePrefix", [](RawGguf& g) { Drop(g, "tokenizer.ggml.add_space_prefix"); }, ErrorCode::kTokenizerUnsupported,
            "add_space_prefix"},
        Lie{"V9_FewerScores", [](RawGguf& g) { Replace(g, "tokenizer.ggml.scores", GgufFloats({0.0F})); }, ErrorCode::kGgufHeader,
            "1 scores"},
        Lie{"V9_TypeSeven", [](RawGguf& g) { Replace(g, "tokenizer.ggml.token_type", GgufInts(std::vector<int32_t>(2304, 7))); },
            ErrorCode::kGgufHeader, "from 1 to 6"},
        Lie{"V9_UnknownIdOutside", [](RawGguf& g) { Replace(g, "tokenizer.ggml.unknown_token_id", GgufU32(1U << 30)); },
            ErrorCode::kGgufHeader, "unknown_token_id"},
        // lmstudio-bug-tracker 2289: "<0x-1>" as a byte piece wrote before the heap block.
        Lie{"V9_BytePieceOfMinusOne", [](RawGguf& g) { Replace(g, "tokenizer.ggml.tokens", TextArrayWith("<0x-1>")); },
            ErrorCode::kTokenizerModel, ""}),
    [](const ::testing::TestParamInfo<Lie>& test) { return std::string(test.param.what); });

}  // namespace
}  // namespace taskpress
