// tokenizer.json of Hugging Face's `tokenizers`, as far as Gemma's byte-pair encoding uses it. Everything else is refused, never ignored,
// when it could change a token. FORMATS, tokenizer, J1..J8.
#ifndef TASKPRESS_CONVERTER_FAST_TOKENIZER_H_
#define TASKPRESS_CONVERTER_FAST_TOKENIZER_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {

struct FastTokenizer {
  struct AddedToken {
    int32_t id = -1;
    bool special = false;
    bool normalized = false;  // looked for after spaces became U+2581, not before
  };
  struct Merge {
    int32_t left = -1;
    int32_t right = -1;
    int32_t result = -1;
  };
  static constexpr int32_t kNoId = -1;

  std::vector<std::string> vocabulary;                 // by id: model.vocab and added tokens together
  std::unordered_map<std::string, int32_t> model_ids;  // model.vocab alone: what merging starts from
  std::vector<Merge> merges;                           // by rank, the best first
  std::vector<AddedToken> added_tokens;
  int32_t unknown_id = kNoId;
  bool byte_fallback = false;
  bool fuse_unknown = false;
  // With byte_fallback: the entry that stands for a byte, "<0x0A>" or (J8) the character itself.
  std::array<int32_t, 256> byte_ids{};

  [[nodiscard]] int32_t FindInModel(const std::string& text) const {
    const auto found = model_ids.find(text);
    return found == model_ids.end() ? kNoId : found->second;
  }
};

inline constexpr JsonLimits kTokenizerJsonLimits{.max_bytes = 64 << 20, .max_depth = 64};

// kTokenizerJson, kTokenizerUnsupported.
Result<FastTokenizer> ReadFastTokenizer(const Json& tokenizer_json);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_FAST_TOKENIZER_H_
