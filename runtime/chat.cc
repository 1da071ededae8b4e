#include "runtime/chat.h"

#include <optional>
#include <string>

#include "schema/base/utf8.h"

namespace taskpress {
namespace {

Result<int32_t> IdOf(const TokenText& token, const Tokenizer& tokenizer) {
  if (token.id != TokenText::kNoTokenId) return token.id;
  const std::optional<int32_t> id = tokenizer.FindPiece(token.text);
  if (!id) return Fail(ErrorCode::kMetadataLint, "the start token \"{}\" is not in the vocabulary", token.text);
  return *id;
}

}  // namespace

// Tokenized as one text: a merge may cross from an affix into the question.
std::string ChatTurnText(const BundleMetadata& metadata, std::string_view user_text) {
  return metadata.user.prefix + std::string(Trim(user_text)) + metadata.user.suffix + metadata.model.prefix;
}

Result<std::vector<int32_t>> EncodeChatTurn(const Tokenizer& tokenizer, const BundleMetadata& metadata, std::string_view user_text) {
  std::vector<int32_t> tokens;
  if (metadata.start_token) tokens.push_back(TRY(IdOf(*metadata.start_token, tokenizer)));
  const std::vector<int32_t> encoded = TRY(tokenizer.Encode(ChatTurnText(metadata, user_text)));
  tokens.insert(tokens.end(), encoded.begin(), encoded.end());
  return tokens;
}

}  // namespace taskpress
