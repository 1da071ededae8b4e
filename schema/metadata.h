// What a client must know beside the weights: start and stop tokens, turn affixes, sampler, context length, model type.
//
// One struct, two spellings: MediaPipe's LlmParameters in `.task`, LiteRT-LM's LlmMetadata in `.litertlm` (both readers accept the former
// in a
// `.task`). Field numbers come from schema/metadata.proto.
#ifndef TASKPRESS_SCHEMA_METADATA_H_
#define TASKPRESS_SCHEMA_METADATA_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/bundle.h"

namespace taskpress {

struct TokenText {
  int32_t id = kNoTokenId;
  std::string text;  // the piece, e.g. "<bos>"
  static constexpr int32_t kNoTokenId = -1;
  bool operator==(const TokenText&) const = default;
};

struct TurnAffixes {
  std::string prefix;
  std::string suffix;
  bool operator==(const TurnAffixes&) const = default;
};

// Always TOP_P on the wire: real clients fail on GREEDY and TOP_K. Greedy is k = 1.
struct SamplerSettings {
  int32_t k = 64;
  float p = 0.95F;
  float temperature = 1.0F;
  bool operator==(const SamplerSettings&) const = default;
};

struct BundleMetadata {
  std::optional<TokenText> start_token;
  std::vector<TokenText> stop_tokens;
  TurnAffixes user;
  TurnAffixes model;
  SamplerSettings sampler;
  int32_t max_num_tokens = 0;  // context length; absent in LlmParameters (0)
  std::string model_type;      // "gemma3n"; absent in LlmParameters (empty)
  bool operator==(const BundleMetadata&) const = default;
};

// Serialized protobuf message for the container's METADATA section. Deterministic.
std::string EncodeMetadata(Container container, const BundleMetadata& metadata);
// The inverse; fills the ids or texts that the message holds. A `.task` may hold either message. kMetadataMalformed; a sampler type that
// makes the client fail is kMetadataLint.
Result<BundleMetadata> DecodeMetadata(Container container, ByteView bytes);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_METADATA_H_
