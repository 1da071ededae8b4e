#include "converter/tokenizer_proof.h"

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "converter/bpe_oracle.h"
#include "schema/base/utf8.h"
#include "schema/sentencepiece_model.h"

namespace taskpress {
namespace {

// One line of each kind of text that people give a model. U+2581 is left out: SentencePiece cannot tell it from a space.
constexpr std::string_view kSample[] = {
    "The quick brown fox jumps over the lazy dog.",
    "  two  spaces,   three    four ",
    "It's 3.14159, not 22/7; see \u00A74.2 \u2013 \u201Cquoted\u201D \u2026 end",
    "1234567890 0x1F 1e-9 007 2026-11-24T06:43:19Z",
    "def f(x):\n    return x ** 2  # square\n\n\nclass A:\n\tpass\n",
    "int main(void) {\n\tprintf(\"%d\\n\", 42);\r\n\treturn 0;\r\n}\n",
    "{\"key\": [1, 2.5, null, true]}\n<html><body class='x'>&amp;</body></html>",
    "SELECT * FROM t WHERE a >= 1 AND b != 'x'; $ make -j8 && ./a.out | tee /tmp/log",
    "https://example.org/a/b?c=d&e=f#g user@example.com CamelCase snake_case",
    "Grüße aus Köln, Straße. Où est l'été ? El niño comió piñas ¿verdad?",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň. İstanbul'da çığ.",
    "Съешь же ещё этих мягких французских булок. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดีชาวโลก தமிழ் አማርኛ ქართული",
    "你好，世界。こんにちは世界、안녕하세요 세계 日本語とEnglishの混在",
    "😀😃 👩‍👩‍👧‍👦 🇩🇪🇯🇵 👍🏽 ❤️ a😀b",
    "e\u0301 vs \u00E9, \uFB01 ligature, zero\u200Bwidth, nb\u00A0sp, em\u2003sp, \uFEFFBOM, \u2028line",
    "<bos>a<eos> <pad><unk><mask> <start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n <start_of_turn",
    "<<bos>> <bos <0x41><0x0A> [multimodal] <unused1><unused1 \x01\x02\x7F",
    "aaaaaaaaaaaaaaaa abababab hahahaha thethethe ssssss ------ ====== ...... !!!???",
};

constexpr int kMaxRun = 140;
constexpr int kRandomTexts = 5000;

std::string Quoted(std::string_view text) { return Json(std::string(text.substr(0, ValidUtf8Prefix(text.substr(0, 200))))).dump(); }

std::string Listed(const std::vector<int32_t>& ids) { return Json(ids).dump().substr(0, 200); }

class Comparison {
 public:
  Comparison(const Tokenizer& tokenizer, const FastTokenizer& fast) : tokenizer_(tokenizer), oracle_(fast) {}

  Status Check(const std::string& text) const {
    const std::vector<int32_t> ours = TRY(tokenizer_.Encode(text));
    const std::vector<int32_t> expected = oracle_.Encode(text);
    if (ours == expected) return {};
    return Fail(ErrorCode::kTokenizerUnsupported,
                "the SentencePiece model and tokenizer.json disagree about {}: {} against {}; provide the tokenizer.model that belongs to "
                "the model",
                Quoted(text), Listed(ours), Listed(expected));
  }

 private:
  const Tokenizer& tokenizer_;
  BpeOracle oracle_;
};

// The one way in which two merges of the same result compete: a text x y z in which both x y and y z spell the entry. tokenizer.json then
// goes by the rank of the pair, SentencePiece by position. y is a border of the entry: its beginning and its end.
Status CheckOverlaps(const Comparison& comparison, const std::string& entry) {
  // Prefix function of Knuth, Morris and Pratt: longest[i] is the length of the longest border of the first i + 1 bytes.
  std::vector<size_t> longest(entry.size(), 0);
  for (size_t i = 1; i < entry.size(); ++i) {
    size_t border = longest[i - 1];
    while (border > 0 && entry[i] != entry[border]) border = longest[border - 1];
    longest[i] = entry[i] == entry[border] ? border + 1 : 0;
  }
  // Bytes that continue a character are never the start of a border, since an entry is UTF-8.
  for (size_t border = longest.back(); border > 0; border = longest[border - 1]) {
    TRY(comparison.Check(UnescapeSpaces(entry.substr(0, entry.size() - border) + entry)));
  }
  return {};
}

Status CheckRuns(const Comparison& comparison) {
  for (const char* repeated : {" ", "\n", "\t", "-", "a", " \n", "\n ", "  x"}) {
    std::string run;
    for (int i = 0; i < kMaxRun; ++i) {
      run += repeated;
      TRY(comparison.Check(run));
      TRY(comparison.Check("x" + run + "y"));
    }
  }
  return {};
}

Status CheckRandomTexts(const Comparison& comparison, const FastTokenizer& fast) {
  // mt19937 and not a distribution: its numbers are the same with every standard library.
  std::mt19937 generator(20261124);
  const auto random = [&generator] { return static_cast<uint32_t>(generator()); };
  constexpr std::array<std::pair<uint32_t, uint32_t>, 8> kRanges = {{{0x01, 0x7F},
                                                                     {0xA0, 0x24F},
                                                                     {0x370, 0x4FF},
                                                                     {0x5D0, 0x6FF},
                                                                     {0x900, 0x97F},
                                                                     {0x3040, 0x30FF},
                                                                     {0x4E00, 0x9FFF},
                                                                     {0x1F300, 0x1F6FF}}};
  for (int i = 0; i < kRandomTexts; ++i) {
    std::string text;
    const uint32_t parts = 2 + random() % 12;
    for (uint32_t part = 0; part < parts; ++part) {
      if (random() % 4 == 0) {
        const auto [low, high] = kRanges[random() % kRanges.size()];
        AppendUtf8(low + random() % (high - low + 1), text);
      } else {
        text += UnescapeSpaces(fast.vocabulary[random() % fast.vocabulary.size()]);
      }
    }
    TRY(comparison.Check(text));
  }
  return {};
}

}  // namespace

Status CompareVocabularies(const Tokenizer& tokenizer, const FastTokenizer& fast, ExtraEntries extra) {
  const auto size = static_cast<size_t>(tokenizer.vocab_size());
  if (size > fast.vocabulary.size() || (size < fast.vocabulary.size() && extra == ExtraEntries::kRefused)) {
    return Fail(ErrorCode::kTokenizerUnsupported, "the SentencePiece model has {} pieces, tokenizer.json {} entries", size,
                fast.vocabulary.size());
  }
  for (size_t index = 0; index < size; ++index) {
    const auto id = static_cast<int32_t>(index);
    const std::string piece = tokenizer.Piece(id);
    const std::string& entry = fast.vocabulary[index];
    if (piece == entry) continue;
    // J8: tokenizer.json may write a byte as its character.
    const std::optional<uint8_t> byte = ByteOfPiece(piece);
    if (tokenizer.IsByte(id) && byte && fast.byte_fallback && fast.byte_ids[*byte] == id) continue;
    return Fail(ErrorCode::kTokenizerUnsupported,
                "id {} is {} in the SentencePiece model and {} in tokenizer.json; remove the file that is out of date", id, Quoted(piece),
                Quoted(entry));
  }
  return {};
}

Status ProveTokenizersEqual(const Tokenizer& tokenizer, const FastTokenizer& fast) {
  TRY(CompareVocabularies(tokenizer, fast, ExtraEntries::kRefused));
  const Comparison comparison(tokenizer, fast);
  for (const std::string_view text : kSample) TRY(comparison.Check(std::string(text)));
  TRY(CheckRuns(comparison));
  for (const std::string& entry : fast.vocabulary) {
    TRY(comparison.Check(UnescapeSpaces(entry)));
    TRY(CheckOverlaps(comparison, entry));
  }
  return CheckRandomTexts(comparison, fast);
}

Status ProveTokenizersEqual(const Tokenizer& tokenizer, const Json& tokenizer_json) {
  return ProveTokenizersEqual(tokenizer, TRY(ReadFastTokenizer(tokenizer_json)));
}

}  // namespace taskpress
