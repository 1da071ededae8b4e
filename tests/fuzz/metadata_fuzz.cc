// What the decoder accepts is encoded and decoded again, and is then a fixed point.
#include <cstdint>
#include <span>

#include "schema/base/text.h"
#include "schema/metadata.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace taskpress;
  for (const Container container : {Container::kTask, Container::kLitertlm}) {
    const Result<BundleMetadata> first = DecodeMetadata(container, std::as_bytes(std::span(data, size)));
    if (!first) {
      Require(!first.error().message.empty() && IsUtf8(first.error().message));
      continue;
    }
    for (const TokenText& token : first->stop_tokens) Require(IsUtf8(token.text) && (token.id >= 0) == token.text.empty());
    const std::string written = EncodeMetadata(container, *first);
    const Result<BundleMetadata> second = DecodeMetadata(container, AsBytes(written));
    // LlmParameters has no place for context length and model type, which may be all a LlmMetadata held.
    if (second) Require(EncodeMetadata(container, *second) == written);
  }
  return 0;
}
