// One turn of a conversation as the tokens that a client would prefill.
#ifndef TASKPRESS_RUNTIME_CHAT_H_
#define TASKPRESS_RUNTIME_CHAT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/metadata.h"
#include "schema/tokenizer.h"

namespace taskpress {

// Start token, user prefix, the trimmed text, user suffix, model prefix: what the checkpoint's template renders for a first question with
// the generation prompt. Markers inside `user_text` become their tokens, as they do there. kNotUtf8, kTextTooLong, kMetadataLint.
Result<std::vector<int32_t>> EncodeChatTurn(const Tokenizer& tokenizer, const BundleMetadata& metadata, std::string_view user_text);

// The same without the start token, as text: what the model goes on with.
std::string ChatTurnText(const BundleMetadata& metadata, std::string_view user_text);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_CHAT_H_
