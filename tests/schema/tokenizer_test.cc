#include "schema/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <thread>

#include "schema/base/error.h"
#include "schema/base/mapped_file.h"
#include "schema/base/utf8.h"
#include "schema/json.h"
#include "schema/sentencepiece_model.h"
#include "tests/testing/tiny_sentencepiece.h"

namespace taskpress {
namespace {

using testing::AddPiece;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TinyModel;

const std::filesystem::path kData = TASKPRESS_TEST_DATA;

Result<Tokenizer> Load(const SentencePieceModel& model) { return Tokenizer::FromModel(AsBytes(model.SerializeAsString())); }

Tokenizer Micro() {
  const auto file = MappedFile::Open(kData / "micro-e4b" / "tokenizer.model");
  return Tokenizer::FromModel(file.value()->bytes()).value();
}

TEST(TokenizerTest, AgreesWithHuggingFaceOnEveryGoldenText) {
  const Tokenizer tokenizer = Micro();
  const Json goldens = ReadJsonFile(kData / "tokenizer_goldens.json").value();
  ASSERT_GT(goldens.size(), 300U);
  for (const Json& golden : goldens) {
    const auto text = golden["text"].get<std::string>();
    const std::vector<int32_t> ids = tokenizer.Encode(text).value();
    EXPECT_EQ(ids, golden["ids"].get<std::vector<int32_t>>()) << golden["text"];
  }
}

TEST(TokenizerTest, DecodesWhatItEncodedUnlessControlPiecesWereInTheText) {
  const Tokenizer tokenizer = Micro();
  size_t exact = 0;
  const Json goldens = ReadJsonFile(kData / "tokenizer_goldens.json").value();
  for (const Json& golden : goldens) {
    const auto text = golden["text"].get<std::string>();
    const auto ids = golden["ids"].get<std::vector<int32_t>>();
    const bool has_control =
        std::ranges::any_of(ids, [&](int32_t id) { return tokenizer.IsControl(id) || tokenizer.Kind(id) == PieceKind::kUnknown; });
    if (has_control) continue;
    EXPECT_EQ(tokenizer.Decode(ids).value(), text) << golden["text"];
    ++exact;
  }
  EXPECT_GT(exact, 250U);
}

TEST(TokenizerTest, ControlPiecesPrintNothingAndBytesOfOneCharacterJoin) {
  const Tokenizer tokenizer = Load(TinyModel()).value();
  const auto byte = [&](uint8_t value) { return tokenizer.FindPiece(PieceOfByte(value)).value(); };
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{2, 4, 264, 1, 3}).value(), "<turn>ab");
  EXPECT_EQ(tokenizer.Decode(std::vector{byte(0xE4), byte(0xBD), byte(0xA0)}).value(), "你");
  EXPECT_EQ(tokenizer.Decode(std::vector{byte(0xE4), byte(0xBD)}).value(), "\uFFFD\uFFFD");
  EXPECT_EQ(tokenizer.Decode(std::vector{byte(0xFF), byte('x'), byte(0xC3)}).value(), "\uFFFDx\uFFFD");
  EXPECT_EQ(tokenizer.Decode(std::vector{byte(0xE4), 264, byte(0xBD)}).value(), "\uFFFDab\uFFFD");
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{-1}).error().code, ErrorCode::kTokenOutOfRange);
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{tokenizer.vocab_size()}).error().code, ErrorCode::kTokenOutOfRange);
}

TEST(TokenizerTest, StreamingHoldsBackAnIncompleteCharacter) {
  const Tokenizer tokenizer = Load(TinyModel()).value();
  StreamingDecoder decoder(tokenizer);
  const auto push = [&](uint8_t value) { return decoder.Push(tokenizer.FindPiece(PieceOfByte(value)).value()).value(); };
  EXPECT_EQ(push(0xF0), "");
  EXPECT_EQ(push(0x9F), "");
  EXPECT_EQ(push(0x98), "");
  EXPECT_EQ(push(0x80), "😀");
  EXPECT_EQ(decoder.Push(265).value(), " ab");
  EXPECT_EQ(push(0xF0), "");
  EXPECT_EQ(decoder.Finish(), "\uFFFD");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST(TokenizerTest, TakesControlPiecesOutOfTheTextLeftmostAndLongestFirst) {
  SentencePieceModel model = TinyModel();
  AddPiece(model, "<bos>x", 0, PieceKind::kControl);
  AddPiece(model, "a<", 0, PieceKind::kUserDefined);
  AddPiece(model, "\u2581\u2581\u2581", 0, PieceKind::kUserDefined);
  AddPiece(model, "\u2581<eos>", 0, PieceKind::kUserDefined);
  const Tokenizer tokenizer = Load(model).value();
  const int32_t bos_x = tokenizer.FindPiece("<bos>x").value();
  EXPECT_THAT(tokenizer.Encode("<bos><bos>x").value(), ElementsAre(2, bos_x));
  EXPECT_THAT(tokenizer.Encode("<unk><pad>").value(), ElementsAre(3, 0));
  // "a<" starts first, so "<bos>" inside it is not seen.
  EXPECT_EQ(tokenizer.Encode("a<bos>").value()[0], tokenizer.FindPiece("a<"));
  // Spaces match U+2581 of user-defined pieces.
  EXPECT_THAT(tokenizer.Encode("   ").value(), ElementsAre(tokenizer.FindPiece("\u2581\u2581\u2581").value()));
  EXPECT_THAT(tokenizer.Encode(" <eos><eos>").value(), ElementsAre(tokenizer.FindPiece("\u2581<eos>").value(), 1));
  EXPECT_EQ(tokenizer.Encode("<eo").value().size(), 3U);
  EXPECT_TRUE(tokenizer.Encode("").value().empty());
}

TEST(TokenizerTest, RefusesTextThatIsNotUtf8AndSaysWhere) {
  const Tokenizer tokenizer = Load(TinyModel()).value();
  for (const char* text : {"ab\xFF", "ab\xC3", "ab\xED\xA0\x80", "ab\xC0\x80", "ab\xF4\x90\x80\x80"}) {
    const auto ids = tokenizer.Encode(text);
    ASSERT_FALSE(ids.has_value());
    EXPECT_EQ(ids.error().code, ErrorCode::kNotUtf8);
    EXPECT_THAT(ids.error().message, HasSubstr("byte 2"));
  }
}

TEST(TokenizerTest, RefusesAStretchOfSixteenMebibytesButNotATextOfManyLines) {
  const Tokenizer tokenizer = Load(TinyModel()).value();
  EXPECT_EQ(tokenizer.Encode(std::string((16 << 20) + 1, 'a')).error().code, ErrorCode::kTextTooLong);
  std::string lines;
  while (lines.size() < (1 << 20)) lines += std::string(1 << 12, 'a') + "\n";
  EXPECT_EQ(tokenizer.Encode(lines).value().size(), lines.size());
}

TEST(TokenizerTest, FindsPiecesAndTheirKinds) {
  const Tokenizer tokenizer = Micro();
  EXPECT_EQ(tokenizer.vocab_size(), 2304);
  EXPECT_EQ(tokenizer.FindPiece("<end_of_turn>"), 10);
  EXPECT_EQ(tokenizer.FindPiece("no such piece"), std::nullopt);
  EXPECT_EQ(tokenizer.Piece(2), "<bos>");
  EXPECT_TRUE(tokenizer.IsControl(2));
  EXPECT_EQ(tokenizer.Kind(10), PieceKind::kUserDefined);
  EXPECT_TRUE(tokenizer.IsByte(22));
}

TEST(TokenizerTest, EncodesFromSeveralThreadsAtOnce) {
  const Tokenizer tokenizer = Micro();
  const std::vector<int32_t> expected = tokenizer.Encode("In the beginning <start_of_turn> 你好").value();
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int repeat = 0; repeat < 50; ++repeat) EXPECT_EQ(tokenizer.Encode("In the beginning <start_of_turn> 你好").value(), expected);
    });
  }
}

TEST(TokenizerTest, AUnigramModelWorksToo) {
  SentencePieceModel model = TinyModel();
  model.mutable_trainer_spec()->set_model_type(kUnigramModel);
  const Tokenizer tokenizer = Load(model).value();
  const std::vector<int32_t> ids = tokenizer.Encode("<bos>abc ab\n\xF0\x9F\x98\x80").value();
  EXPECT_EQ(tokenizer.Decode(ids).value(), "abc ab\n\xF0\x9F\x98\x80");
}

struct Lie {
  const char* rule;  // named in the message
  ErrorCode code;
  std::function<void(SentencePieceModel&)> tell;
};

const std::vector<Lie>& Lies() {
  static const auto& lies = *new std::vector<Lie>{
      {"K2", ErrorCode::kTokenizerModel, [](auto& m) { m.clear_trainer_spec(); }},
      {"K2", ErrorCode::kTokenizerModel, [](auto& m) { m.clear_normalizer_spec(); }},
      {"K3", ErrorCode::kTokenizerModel, [](auto& m) { m.clear_pieces(); }},
      {"K4", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(4)->clear_piece(); }},
      {"K4", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(4)->set_piece(std::string(4097, 'a')); }},
      {"K4", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(4)->set_piece("\xFFx"); }},
      {"K4", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(4)->set_piece(std::string("a\0b", 3)); }},
      {"K4", ErrorCode::kTokenizerModel,
       [](auto& m) {
         for (int i = 0; i < 4200; ++i) AddPiece(m, Format("{:4000}", i), 0, PieceKind::kNormal);
       }},
      {"K5", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(5)->set_piece("<turn>"); }},
      {"K5", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(5)->set_piece("<bos>"); }},
      {"K6", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(264)->set_score(std::numeric_limits<float>::infinity()); }},
      {"K6", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(264)->set_score(std::numeric_limits<float>::quiet_NaN()); }},
      {"K7", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(4)->set_type(0); }},
      {"K7", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(4)->set_type(7); }},
      {"K7", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(4)->set_type(-1); }},
      {"K8", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(3)->set_type(1); }},
      {"K8", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(4)->set_type(2); }},
      {"K9", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(8)->set_piece("<0x-1>"); }},
      {"K9", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(18)->set_piece("<0x0a>"); }},
      {"K9", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(8)->set_piece("<0x000>"); }},
      {"K9", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_pieces(8)->set_type(1); }},
      {"K10", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_trainer_spec()->set_byte_fallback(false); }},
      {"K10", ErrorCode::kTokenizerModel,
       [](auto& m) {
         for (int id = 8; id < 264; ++id) m.mutable_pieces(id)->set_type(1);
       }},
      {"K11", ErrorCode::kTokenizerKind, [](auto& m) { m.mutable_trainer_spec()->set_model_type(3); }},
      {"K11", ErrorCode::kTokenizerKind, [](auto& m) { m.mutable_trainer_spec()->set_model_type(4); }},
      {"K11", ErrorCode::kTokenizerKind, [](auto& m) { m.mutable_trainer_spec()->set_model_type(99); }},
      {"K12", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_trainer_spec()->set_bos_id(m.pieces_size()); }},
      {"K12", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_trainer_spec()->set_unk_id(-2); }},
      {"K12", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_trainer_spec()->set_eos_id(1 << 30); }},
      {"K12", ErrorCode::kTokenizerModel, [](auto& m) { m.mutable_trainer_spec()->set_pad_id(std::numeric_limits<int32_t>::min()); }},
      {"K13", ErrorCode::kTokenizerKind, [](auto& m) { m.mutable_normalizer_spec()->set_precompiled_charsmap("\xFF\xFF\xFF\xFF"); }},
      {"K13", ErrorCode::kTokenizerKind, [](auto& m) { m.mutable_denormalizer_spec()->set_precompiled_charsmap("xxxxx"); }},
      {"K13", ErrorCode::kTokenizerKind, [](auto& m) { m.mutable_normalizer_spec()->clear_add_dummy_prefix(); }},
      {"K13", ErrorCode::kTokenizerKind, [](auto& m) { m.mutable_normalizer_spec()->set_remove_extra_whitespaces(true); }},
      {"K13", ErrorCode::kTokenizerKind, [](auto& m) { m.mutable_normalizer_spec()->set_escape_whitespaces(false); }},
      {"K14", ErrorCode::kTokenizerModel,
       [](auto& m) {
         for (size_t length = 2; length < 67; ++length) AddPiece(m, std::string(length, 'x'), 0, PieceKind::kUserDefined);
       }},
  };
  return lies;
}

TEST(SentencePieceModelTest, EveryLieIsRefusedUnderItsRule) {
  ASSERT_TRUE(Load(TinyModel()).has_value());
  for (const Lie& lie : Lies()) {
    SentencePieceModel model = TinyModel();
    lie.tell(model);
    const auto tokenizer = Load(model);
    ASSERT_FALSE(tokenizer.has_value()) << lie.rule;
    EXPECT_EQ(tokenizer.error().code, lie.code) << tokenizer.error().message;
    EXPECT_THAT(tokenizer.error().message, HasSubstr(lie.rule));
  }
}

TEST(SentencePieceModelTest, SixtyFourNestedUserDefinedPiecesAreAllowedAndMatched) {
  SentencePieceModel model = TinyModel();
  for (size_t length = 1; length <= 64; ++length) AddPiece(model, std::string(length, 'x'), 0, PieceKind::kUserDefined);
  const Tokenizer tokenizer = Load(model).value();
  EXPECT_THAT(tokenizer.Encode(std::string(65, 'x')).value(),
              ElementsAre(tokenizer.FindPiece(std::string(64, 'x')).value(), tokenizer.FindPiece("x").value()));
}

TEST(SentencePieceModelTest, EveryTruncationIsRefused) {
  const std::string whole = TinyModel().SerializeAsString();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(Tokenizer::FromModel(AsBytes(std::string_view(whole).substr(0, size))).has_value()) << size;
  }
}

TEST(SentencePieceModelTest, EveryFlippedByteIsRefusedOrHarmless) {
  const std::string whole = TinyModel().SerializeAsString();
  for (size_t position = 0; position < whole.size(); ++position) {
    std::string damaged = whole;
    damaged[position] = static_cast<char>(damaged[position] ^ "\x01\x80\xFF"[position % 3]);
    const auto tokenizer = Tokenizer::FromModel(AsBytes(damaged));
    if (!tokenizer) continue;
    EXPECT_TRUE(tokenizer->Encode("<bos>ab the  abc\n é 😀").has_value()) << position;
  }
}

TEST(SentencePieceModelTest, CountsPiecesBeforeParsingThem) {
  std::string many;
  for (int i = 0; i <= (1 << 20); ++i) many += std::string_view("\x0A\x00", 2);
  const auto model = ReadSentencePieceModel(AsBytes(many));
  ASSERT_FALSE(model.has_value());
  EXPECT_THAT(model.error().message, HasSubstr("K3"));
}

TEST(SentencePieceModelTest, WhatTheRulesDoNotKnowDoesNotReachTheLibrary) {
  SentencePieceModel model = TinyModel();
  // Field 4 is self_test_data: SentencePiece would run it while loading. This one would fail.
  model.mutable_unknown_fields()->append(std::string_view("\x22\x0A\x0A\x08\x0A\x02\x61\x62\x12\x02\x78\x79", 12));
  const std::string bytes = model.SerializeAsString();
  const SentencePieceModel read = ReadSentencePieceModel(AsBytes(bytes)).value();
  EXPECT_EQ(read.SerializeAsString(), TinyModel().SerializeAsString());
  EXPECT_TRUE(Tokenizer::FromModel(AsBytes(bytes)).has_value());
}

TEST(SentencePieceModelTest, KnowsTheSpellingOfBytePieces) {
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(ByteOfPiece(PieceOfByte(static_cast<uint8_t>(byte))), byte);
  for (const char* wrong : {"", "<0x>", "<0x0>", "<0xg0>", "<0xaB>", "<0X41>", "<0x41", "0x41>", "<0x-1>", "<0x041>", "<0x+1>"}) {
    EXPECT_EQ(ByteOfPiece(wrong), std::nullopt) << wrong;
  }
}

TEST(Utf8Test, RoundTripsEveryScalarValueAndRefusesTheRest) {
  for (uint32_t code_point = 0; code_point <= 0x10FFFF; ++code_point) {
    if (code_point >= 0xD800 && code_point < 0xE000) continue;
    std::string text;
    AppendUtf8(code_point, text);
    const Utf8Char first = FirstUtf8Char(text);
    ASSERT_TRUE(first.state == Utf8State::kComplete && first.code_point == code_point && first.length == text.size()) << code_point;
    for (size_t length = 1; length < text.size(); ++length) {
      ASSERT_EQ(FirstUtf8Char(std::string_view(text).substr(0, length)).state, Utf8State::kIncomplete);
    }
  }
  EXPECT_FALSE(IsValidUtf8("\xED\xA0\x80"));
  EXPECT_FALSE(IsValidUtf8("\xC1\xBF"));
  EXPECT_FALSE(IsValidUtf8("\xE0\x9F\xBF"));
  EXPECT_FALSE(IsValidUtf8("\xF5\x80\x80\x80"));
  EXPECT_FALSE(IsValidUtf8("\x80"));
}

TEST(Utf8Test, TrimsWhatPythonTrims) {
  EXPECT_EQ(Trim(" \t\n\u00A0\u3000x y\u2028\x1C "), "x y");
  EXPECT_EQ(Trim("\u200Bx"), "\u200Bx");
  EXPECT_EQ(Trim(" \n "), "");
  EXPECT_EQ(Trim("\x01"
                 "A\x01"),
            "\x01"
            "A\x01");
  EXPECT_EQ(TrimRight("a \xFF"), "a \xFF");
}

}  // namespace
}  // namespace taskpress
