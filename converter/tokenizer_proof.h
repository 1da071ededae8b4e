// Shows that a SentencePiece tokenizer and a tokenizer.json give the same ids.
#ifndef TASKPRESS_CONVERTER_TOKENIZER_PROOF_H_
#define TASKPRESS_CONVERTER_TOKENIZER_PROOF_H_

#include "converter/fast_tokenizer.h"
#include "schema/base/error.h"
#include "schema/json.h"
#include "schema/tokenizer.h"

namespace taskpress {

enum class ExtraEntries : uint8_t { kRefused, kAllowed };

// Each piece is what tokenizer.json has at that id. With kAllowed, tokenizer.json may have further entries. kTokenizerUnsupported.
Status CompareVocabularies(const Tokenizer& tokenizer, const FastTokenizer& fast, ExtraEntries extra);

// Vocabularies are equal, and both encoders agree on every vocabulary entry, on texts built so that merges compete, on a sample of scripts,
// code, emoji and white space, and on random texts (fixed seed). kTokenizerUnsupported with the first text that differs; kTokenizerJson.
Status ProveTokenizersEqual(const Tokenizer& tokenizer, const FastTokenizer& fast);
Status ProveTokenizersEqual(const Tokenizer& tokenizer, const Json& tokenizer_json);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_TOKENIZER_PROOF_H_
