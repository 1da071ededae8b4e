#include "converter/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "converter/bpe_oracle.h"
#include "converter/tokenizer_files.h"
#include "converter/tokenizer_proof.h"
#include "schema/sentencepiece_model.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::filesystem::path kMicro = std::filesystem::path(TASKPRESS_TEST_DATA) / "micro-e4b";

const Json& MicroJson() {
  static const Json& json = *new Json(ReadJsonFile(kMicro / "tokenizer.json", kTokenizerJsonLimits).value());
  return json;
}

// Entries 0 <unk>, 1 <bos>, 2 "▁", 3 a, 4 b, 5 c, 6 ab, 7 bc, 8 abc, 9 aa, 10 aaa, 11 "<mark>" (added only).
Json TinyJson() {
  return Json::parse(R"({
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, "pre_tokenizer": null,
    "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<bos>", "special": true},
                     {"id": 11, "content": "<mark>", "special": false, "normalized": true}],
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": false,
      "vocab": {"<unk>": 0, "<bos>": 1, "▁": 2, "a": 3, "b": 4, "c": 5, "ab": 6, "bc": 7, "abc": 8, "aa": 9, "aaa": 10},
      "merges": [["a", "b"], ["b", "c"], "ab c", ["a", "bc"], ["a", "a"], ["aa", "a"], ["a", "aa"]]}})");
}

Result<Tokenizer> Rebuild(const Json& json) {
  const Result<std::string> model = RebuildSentencePieceModel(json, nullptr);
  if (!model) return std::unexpected(model.error());
  return Tokenizer::FromModel(AsBytes(*model));
}

TEST(BpeOracleTest, AgreesWithHuggingFaceOnEveryGoldenText) {
  const FastTokenizer fast = ReadFastTokenizer(MicroJson()).value();
  const BpeOracle oracle(fast);
  const Json goldens = ReadJsonFile(std::filesystem::path(TASKPRESS_TEST_DATA) / "tokenizer_goldens.json").value();
  for (const Json& golden : goldens) {
    EXPECT_EQ(oracle.Encode(golden["text"].get<std::string>()), golden["ids"].get<std::vector<int32_t>>()) << golden["text"];
  }
}

// Ids by `tokenizers` 0.22.1 run on TinyJson().
TEST(BpeOracleTest, MergesByRankFusesUnknownCharactersAndSplitsAtAddedTokens) {
  const FastTokenizer fast = ReadFastTokenizer(TinyJson()).value();
  const BpeOracle oracle(fast);
  EXPECT_THAT(oracle.Encode("abc"), ElementsAre(8));
  EXPECT_THAT(oracle.Encode("a bc"), ElementsAre(3, 2, 7));
  EXPECT_THAT(oracle.Encode("xyza"), ElementsAre(0, 3));
  EXPECT_THAT(oracle.Encode("x y"), ElementsAre(0, 2, 0));
  EXPECT_THAT(oracle.Encode("aaaaa"), ElementsAre(9, 10));
  EXPECT_THAT(oracle.Encode("a<bos>b<mark>c<unk>"), ElementsAre(3, 1, 4, 11, 5, 0));
}

TEST(TokenizerJsonTest, TheMicroModelIsRebuiltAndProvenEqual) {
  const Json config = ReadJsonFile(kMicro / "tokenizer_config.json").value();
  const std::string model = RebuildSentencePieceModel(MicroJson(), &config).value();
  const Tokenizer tokenizer = Tokenizer::FromModel(AsBytes(model)).value();
  const Status proof = ProveTokenizersEqual(tokenizer, MicroJson());
  EXPECT_TRUE(proof.has_value()) << proof.error().message;
  EXPECT_EQ(RebuildSentencePieceModel(MicroJson(), nullptr).value(), model) << "Gemma's names are the default";
}

TEST(TokenizerJsonTest, TheRebuiltModelHasTheKindsOfTheOriginal) {
  const Tokenizer rebuilt = Rebuild(MicroJson()).value();
  const SharedBytes bytes = LoadTokenizerModel(kMicro).value();
  const Tokenizer original = Tokenizer::FromModel(bytes->view()).value();
  ASSERT_EQ(rebuilt.vocab_size(), original.vocab_size());
  for (int32_t id = 0; id < original.vocab_size(); ++id) {
    EXPECT_EQ(rebuilt.Piece(id), original.Piece(id));
    // Runs of spaces are merged in tokenizer.json and user-defined in tokenizer.model.
    if (original.Piece(id).starts_with("\u2581\u2581")) continue;
    EXPECT_EQ(rebuilt.Kind(id), original.Kind(id)) << original.Piece(id);
  }
}

TEST(TokenizerJsonTest, TheOriginalModelOfTheMicroCheckpointIsEqualToItsJson) {
  const SharedBytes bytes = LoadTokenizerModel(kMicro).value();
  const Status proof = ProveTokenizersEqual(Tokenizer::FromModel(bytes->view()).value(), MicroJson());
  EXPECT_TRUE(proof.has_value()) << proof.error().message;
}

TEST(TokenizerJsonTest, ASmallVocabularyWithoutBytesIsRebuilt) {
  const Tokenizer tokenizer = Rebuild(TinyJson()).value();
  const Status proof = ProveTokenizersEqual(tokenizer, TinyJson());
  EXPECT_TRUE(proof.has_value()) << proof.error().message;
  EXPECT_EQ(tokenizer.Kind(11), PieceKind::kUserDefined);
  EXPECT_EQ(tokenizer.Kind(1), PieceKind::kControl);
}

TEST(TokenizerJsonTest, AnEntryThatNoMergeProducesIsNeverReached) {
  Json json = TinyJson();
  json["model"]["merges"].erase(0);
  const Tokenizer tokenizer = Rebuild(json).value();
  EXPECT_EQ(tokenizer.Kind(6), PieceKind::kUnused);
  EXPECT_THAT(tokenizer.Encode("abab").value(), ElementsAre(3, 4, 3, 4));
  const Status proof = ProveTokenizersEqual(tokenizer, json);
  EXPECT_TRUE(proof.has_value()) << proof.error().message;
}

// Gemma has runs of up to 31 spaces. Its converter lists their merges by the length of the left half, so the ranks of different results are
// interleaved, which one score per result can only approximate.
TEST(TokenizerJsonTest, LongRunsOfSpacesAreMergedAsInGemma) {
  constexpr size_t kLongest = 31;
  const auto run = [](size_t length) {
    std::string text;
    for (size_t i = 0; i < length; ++i) text += kEscapedSpace;
    return text;
  };
  Json json = TinyJson();
  for (size_t length = 2; length <= kLongest; ++length) {
    json["model"]["vocab"][run(length)] = 10 + length;
    json["added_tokens"].push_back({{"id", 10 + length}, {"content", run(length)}, {"normalized", false}});
  }
  Json merges = Json::array();
  for (size_t left = kLongest - 1; left > 0; --left) {
    for (size_t right = kLongest - left; right > 0; --right) merges.push_back(Json::array({run(left), run(right)}));
  }
  for (const Json& merge : json["model"]["merges"]) merges.push_back(merge);
  json["model"]["merges"] = std::move(merges);
  const Tokenizer tokenizer = Rebuild(json).value();
  const Status proof = ProveTokenizersEqual(tokenizer, json);
  EXPECT_TRUE(proof.has_value()) << proof.error().message;
  // Ids by `tokenizers` 0.22.1: a run grows from the left, as user-defined runs would be matched.
  EXPECT_THAT(tokenizer.Encode(std::string(33, ' ')).value(), ElementsAre(41, 12));
  EXPECT_THAT(tokenizer.Encode(std::string(48, ' ')).value(), ElementsAre(41, 27));
}

// "a+b b+c" -> [["a", "b"], ["b", "c"]]
Json Pairs(const std::string& text) {
  Json pairs = Json::array();
  std::istringstream words(text);
  for (std::string word; words >> word;) pairs.push_back(Json::array({word.substr(0, word.find('+')), word.substr(word.find('+') + 1)}));
  return pairs;
}

struct Difference {
  const char* name;
  std::function<void(Json&)> make;
};

TEST(TokenizerJsonTest, WhatASentencePieceModelCannotExpressIsFoundByTheProof) {
  const Difference differences[] = {
      // "abc" may only be formed from ab and c, but SentencePiece merges whatever spells an entry.
      {"an entry without one of its merges", [](Json& j) { j["model"]["merges"] = Pairs("b+c a+b ab+c a+a aa+a"); }},
      // abc from (a, bc) is worse than (ab, c) is better than (b, c): one score for abc cannot say so.
      {"two merges of one result far apart", [](Json& j) { j["model"]["merges"] = Pairs("a+bc a+a b+c a+aa a+b ab+c aa+a"); }},
      {"an added token with a space", [](Json& j) { j["added_tokens"][2]["content"] = "x y"; }},
      {"the unknown token is ordinary text", [](Json& j) { j["added_tokens"].erase(0); }},
  };
  for (const Difference& difference : differences) {
    Json json = TinyJson();
    difference.make(json);
    const auto tokenizer = Rebuild(json);
    ASSERT_TRUE(tokenizer.has_value()) << difference.name << tokenizer.error().message;
    const Status proof = ProveTokenizersEqual(*tokenizer, json);
    ASSERT_FALSE(proof.has_value()) << difference.name;
    EXPECT_EQ(proof.error().code, ErrorCode::kTokenizerUnsupported);
    EXPECT_THAT(proof.error().message, HasSubstr("disagree about")) << difference.name;
  }
}

struct Lie {
  const char* rule;
  ErrorCode code;
  std::function<void(Json&)> tell;
};

TEST(TokenizerJsonTest, EveryLieIsRefusedUnderItsRule) {
  const ErrorCode bad = ErrorCode::kTokenizerJson;
  const ErrorCode unsupported = ErrorCode::kTokenizerUnsupported;
  const Lie lies[] = {
      {"not an object", bad, [](Json& j) { j = Json::array(); }},
      {"J1", bad, [](Json& j) { j["model"]["vocab"] = Json::object(); }},
      {"J1", bad, [](Json& j) { j["model"]["vocab"] = Json::array(); }},
      {"J1", bad, [](Json& j) { j["model"]["merges"] = "a b"; }},
      {"J1", bad, [](Json& j) { j["added_tokens"] = Json::object(); }},
      {"J2", unsupported, [](Json& j) { j["model"]["type"] = "Unigram"; }},
      {"J2", unsupported, [](Json& j) { j.erase("model"); }},
      {"J2", unsupported, [](Json& j) { j["model"]["dropout"] = 0.1; }},
      {"J2", unsupported, [](Json& j) { j["model"]["continuing_subword_prefix"] = "##"; }},
      {"J2", unsupported, [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }},
      {"J2", unsupported, [](Json& j) { j["model"]["ignore_merges"] = true; }},
      {"J2", unsupported, [](Json& j) { j["model"]["fuse_unk"] = false; }},
      {"J2", unsupported, [](Json& j) { j["model"]["unk_token"] = nullptr; }},
      {"J2", bad, [](Json& j) { j["model"]["unk_token"] = "<UNK>"; }},
      {"J3", bad, [](Json& j) { j["model"]["vocab"]["a"] = -1; }},
      {"J3", bad, [](Json& j) { j["model"]["vocab"]["a"] = 1 << 20; }},
      {"J3", bad, [](Json& j) { j["model"]["vocab"]["a"] = 3.5; }},
      {"J3", bad, [](Json& j) { j["model"]["vocab"]["a"] = "3"; }},
      {"J3", bad, [](Json& j) { j["model"]["vocab"]["a"] = 4; }},
      {"J3", bad, [](Json& j) { j["model"]["vocab"]["far"] = 50; }},
      {"J3", bad, [](Json& j) { j["model"]["vocab"][""] = 11; }},
      {"J3", bad, [](Json& j) { j["model"]["vocab"][std::string(5000, 'x')] = 12; }},
      {"J3", bad, [](Json& j) { j["model"]["vocab"][std::string("x\0y", 3)] = 12; }},
      {"J3", bad, [](Json& j) { j["added_tokens"][2]["content"] = "abc"; }},
      {"J3", bad, [](Json& j) { j["added_tokens"][2]["id"] = 10; }},
      {"J3", bad, [](Json& j) { j["added_tokens"][2]["id"] = 13; }},
      {"J3", bad, [](Json& j) { j["added_tokens"][2].erase("content"); }},
      {"J3", bad, [](Json& j) { j["added_tokens"][2] = 7; }},
      {"J3", bad, [](Json& j) { j["added_tokens"].push_back({{"id", 12}, {"content", "<mark>"}}); }},
      {"J4", unsupported, [](Json& j) { j["normalizer"] = nullptr; }},
      {"J4", unsupported, [](Json& j) { j["normalizer"]["type"] = "NFKC"; }},
      {"J4", unsupported, [](Json& j) { j["normalizer"]["content"] = "_"; }},
      {"J4", unsupported, [](Json& j) { j["normalizer"]["pattern"] = {{"Regex", " "}}; }},
      {"J4", unsupported,
       [](Json& j) {
         j["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", "\u2581"}}, j["normalizer"]}}};
       }},
      {"J5", unsupported, [](Json& j) { j["pre_tokenizer"] = {{"type", "ByteLevel"}}; }},
      {"J5", unsupported, [](Json& j) { j["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"invert", false}}; }},
      {"J5", unsupported, [](Json& j) { j["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"String", " "}}}, {"invert", true}}; }},
      {"J6", unsupported, [](Json& j) { j["added_tokens"][2]["single_word"] = true; }},
      {"J6", unsupported, [](Json& j) { j["added_tokens"][2]["lstrip"] = true; }},
      {"J6", unsupported, [](Json& j) { j["added_tokens"][2]["rstrip"] = true; }},
      {"J7", bad, [](Json& j) { j["model"]["merges"].push_back({"a", "c"}); }},
      {"J7", bad, [](Json& j) { j["model"]["merges"].push_back({"a", "x"}); }},
      {"J7", bad, [](Json& j) { j["model"]["merges"].push_back({"a", "b"}); }},
      {"J7", bad, [](Json& j) { j["model"]["merges"].push_back({"a", "b", "c"}); }},
      {"J7", bad, [](Json& j) { j["model"]["merges"].push_back("a b c"); }},
      {"J7", bad, [](Json& j) { j["model"]["merges"].push_back("ab"); }},
      {"J7", bad, [](Json& j) { j["model"]["merges"].push_back(5); }},
      {"J8", unsupported, [](Json& j) { j["model"]["byte_fallback"] = true; }},
  };
  ASSERT_TRUE(ReadFastTokenizer(TinyJson()).has_value());
  for (const Lie& lie : lies) {
    Json json = TinyJson();
    lie.tell(json);
    const auto fast = ReadFastTokenizer(json);
    ASSERT_FALSE(fast.has_value()) << lie.rule << " " << json.dump();
    EXPECT_EQ(fast.error().code, lie.code) << fast.error().message;
    EXPECT_THAT(fast.error().message, HasSubstr(lie.rule));
  }
}

class TokenizerFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Copy(const char* name) { std::filesystem::copy_file(kMicro / name, folder_ / name); }
  void Write(const char* name, const std::string& text) { std::ofstream(folder_ / name, std::ios::binary) << text; }
  std::filesystem::path folder_;
};

TEST_F(TokenizerFilesTest, TokenizerModelIsCopiedByteForByte) {
  Copy("tokenizer.model");
  const SharedBytes bytes = LoadTokenizerModel(folder_).value();
  const auto original = MappedFile::Open(kMicro / "tokenizer.model").value();
  EXPECT_EQ(AsText(bytes->view()), AsText(original->bytes()));
}

TEST_F(TokenizerFilesTest, WithoutTokenizerModelItIsRebuiltFromTokenizerJson) {
  Copy("tokenizer.json");
  Copy("tokenizer_config.json");
  const SharedBytes bytes = LoadTokenizerModel(folder_).value();
  const Tokenizer tokenizer = Tokenizer::FromModel(bytes->view()).value();
  EXPECT_EQ(tokenizer.Encode("<bos>Hello  world\t").value(), (std::vector<int32_t>{2, 2009, 1062, 1957, 15, 1973, 293, 402, 31}));
}

TEST_F(TokenizerFilesTest, FilesThatDoNotBelongTogetherAreRefused) {
  Copy("tokenizer.model");
  Json json = MicroJson();
  json["added_tokens"][6]["content"] = "<my_tool>";
  json["model"]["vocab"].erase("<unused0>");
  json["model"]["vocab"]["<my_tool>"] = 6;
  Write("tokenizer.json", json.dump());
  const auto bytes = LoadTokenizerModel(folder_);
  ASSERT_FALSE(bytes.has_value());
  EXPECT_EQ(bytes.error().code, ErrorCode::kTokenizerUnsupported);
  EXPECT_THAT(bytes.error().message, HasSubstr("id 6 is \"<unused0>\" in the SentencePiece model and \"<my_tool>\""));
}

TEST_F(TokenizerFilesTest, FurtherEntriesInTokenizerJsonAreAllowed) {
  Copy("tokenizer.model");
  Json json = MicroJson();
  json["added_tokens"].push_back({{"id", 2304}, {"content", "<picture>"}, {"special", true}});
  Write("tokenizer.json", json.dump());
  EXPECT_TRUE(LoadTokenizerModel(folder_).has_value());
}

TEST_F(TokenizerFilesTest, MissingAndDamagedFilesAreNamed) {
  EXPECT_EQ(LoadTokenizerModel(folder_).error().code, ErrorCode::kTokenizerMissing);
  Write("tokenizer.json", "{\"model\": ");
  EXPECT_EQ(LoadTokenizerModel(folder_).error().code, ErrorCode::kBadJson);
  Write("tokenizer.model", "version https://git-lfs.github.com/spec/v1\n");
  const auto bytes = LoadTokenizerModel(folder_);
  EXPECT_EQ(bytes.error().code, ErrorCode::kTokenizerModel);
  EXPECT_THAT(bytes.error().message, HasSubstr("tokenizer.model"));
}

}  // namespace
}  // namespace taskpress
