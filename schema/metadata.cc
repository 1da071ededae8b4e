#include "schema/metadata.h"

#include <array>
#include <cmath>

#include "schema/base/text.h"
#include "schema/metadata.pb.h"

namespace taskpress {
namespace {

constexpr uint64_t kLargestMessage = 16 << 20;  // M7

// --- model types ------------------------------------------------------------------------------------------------------------------------

struct ModelType {
  std::string_view name;
  proto::LlmModelType::ModelTypeCase number;
  proto::ModelTypeFields* (proto::LlmModelType::*select)();
};

using Type = proto::LlmModelType;
constexpr auto kModelTypes = std::to_array<ModelType>({
    {"gemma3n", Type::kGemma3N, &Type::mutable_gemma3n},
    {"generic_model", Type::kGenericModel, &Type::mutable_generic_model},
    {"function_gemma", Type::kFunctionGemma, &Type::mutable_function_gemma},
    {"gemma3", Type::kGemma3, &Type::mutable_gemma3},
    {"qwen3", Type::kQwen3, &Type::mutable_qwen3},
    {"qwen2p5", Type::kQwen2P5, &Type::mutable_qwen2p5},
    {"gemma4", Type::kGemma4, &Type::mutable_gemma4},
    {"fast_vlm", Type::kFastVlm, &Type::mutable_fast_vlm},
    {"lfm2", Type::kLfm2, &Type::mutable_lfm2},
    {"minicpm5", Type::kMinicpm5, &Type::mutable_minicpm5},
    {"minicpmv4", Type::kMinicpmv4, &Type::mutable_minicpmv4},
});
constexpr std::string_view kUnknownModelType = "unknown";

std::string NameOf(const proto::LlmModelType& model_type) {
  for (const ModelType& type : kModelTypes) {
    if (type.number == model_type.model_type_case()) return std::string(type.name);
  }
  return std::string(kUnknownModelType);
}

// --- writing ----------------------------------------------------------------------------------------------------------------------------

void SetAffixes(const TurnAffixes& affixes, proto::PromptAffixes& out) {
  out.set_prefix(affixes.prefix);
  out.set_suffix(affixes.suffix);
}

// M2: ids where there are any, so that no client has to tokenize.
void SetToken(const TokenText& token, proto::TokenUnion& out) {
  if (token.id != TokenText::kNoTokenId) {
    out.mutable_token_ids()->add_ids(token.id);
  } else {
    out.set_token_str(token.text);
  }
}

bool HasTurns(const BundleMetadata& metadata) { return metadata.user != TurnAffixes{} || metadata.model != TurnAffixes{}; }

proto::LlmMetadata ToLlmMetadata(const BundleMetadata& metadata) {
  proto::LlmMetadata out;
  if (metadata.start_token) SetToken(*metadata.start_token, *out.mutable_start_token());
  for (const TokenText& token : metadata.stop_tokens) SetToken(token, *out.add_stop_tokens());
  if (HasTurns(metadata)) {
    SetAffixes(metadata.user, *out.mutable_prompt_templates()->mutable_user());
    SetAffixes(metadata.model, *out.mutable_prompt_templates()->mutable_model());
  }
  proto::SamplerParameters& sampler = *out.mutable_sampler_params();
  sampler.set_type(proto::SamplerParameters::TOP_P);  // M4
  sampler.set_k(metadata.sampler.k);
  sampler.set_p(metadata.sampler.p);
  sampler.set_temperature(metadata.sampler.temperature);
  out.set_max_num_tokens(metadata.max_num_tokens);
  for (const ModelType& type : kModelTypes) {
    if (type.name == metadata.model_type) (out.mutable_llm_model_type()->*type.select)();
  }
  return out;
}

// M3: texts, as MediaPipe's bundler writes them.
proto::LlmParameters ToLlmParameters(const BundleMetadata& metadata) {
  proto::LlmParameters out;
  if (metadata.start_token) {
    if (!metadata.start_token->text.empty()) {
      out.set_start_token(metadata.start_token->text);
    } else {
      out.set_start_token_id(metadata.start_token->id);
    }
  }
  for (const TokenText& token : metadata.stop_tokens) {
    if (!token.text.empty()) {
      out.add_stop_tokens(token.text);
    } else {
      out.add_stop_token_ids(token.id);
    }
  }
  if (HasTurns(metadata)) {
    out.mutable_prompt_template()->set_prompt_prefix(metadata.user.prefix);
    out.mutable_prompt_template()->set_prompt_suffix(metadata.user.suffix + metadata.model.prefix);
    SetAffixes(metadata.user, *out.mutable_prompt_templates()->mutable_user_template());
    SetAffixes(metadata.model, *out.mutable_prompt_templates()->mutable_model_template());
  }
  return out;
}

// --- reading ----------------------------------------------------------------------------------------------------------------------------

// M6. What a client does with a message that does not name a sampler: it takes the most likely token.
constexpr SamplerSettings kClientDefaultSampler{.k = 1, .p = 0.95F, .temperature = 1.0F};

Result<std::string> ReadText(std::string_view field, const std::string& bytes) {
  if (!IsUtf8(bytes)) return Fail(ErrorCode::kMetadataMalformed, "{} \"{}\" is not UTF-8", field, Printable(bytes));
  return bytes;
}

Result<TokenText> ReadId(std::string_view field, int32_t id) {
  if (id < 0) return Fail(ErrorCode::kMetadataMalformed, "{} has id {}", field, id);
  return TokenText{.id = id, .text = {}};
}

Result<TokenText> ReadTokenText(std::string_view field, const std::string& bytes) {
  if (bytes.empty()) return Fail(ErrorCode::kMetadataMalformed, "{} is an empty text", field);
  return TokenText{.id = TokenText::kNoTokenId, .text = TRY(ReadText(field, bytes))};
}

Result<TokenText> ReadToken(std::string_view field, const proto::TokenUnion& token) {
  if (token.has_token_str()) return ReadTokenText(field, token.token_str());
  if (token.token_ids().ids_size() == 0) return Fail(ErrorCode::kMetadataMalformed, "{} holds neither id nor text", field);
  if (token.token_ids().ids_size() > 1) {
    return Fail(ErrorCode::kMetadataUnsupported, "{} is a sequence of {} tokens, one is supported", field, token.token_ids().ids_size());
  }
  return ReadId(field, token.token_ids().ids(0));
}

Result<TurnAffixes> ReadAffixes(std::string_view field, const proto::PromptAffixes& affixes) {
  TurnAffixes read;
  read.prefix = TRY(ReadText(field, affixes.prefix()));
  read.suffix = TRY(ReadText(field, affixes.suffix()));
  return read;
}

// M4, M5.
Result<SamplerSettings> ReadSampler(const proto::SamplerParameters& sampler) {
  if (sampler.type() == proto::SamplerParameters::TYPE_UNSPECIFIED) return kClientDefaultSampler;
  if (sampler.type() != proto::SamplerParameters::TOP_P) {
    return Fail(
        ErrorCode::kMetadataLint,
        "sampler type {}: LiteRT-LM stops at the first token with \"Sampler type: {} not implemented yet\"; expected TOP_P (2), greedy is "
        "TOP_P with k = 1",
        static_cast<int>(sampler.type()), static_cast<int>(sampler.type()));
  }
  const SamplerSettings out{.k = sampler.k(), .p = sampler.p(), .temperature = sampler.temperature()};
  const bool sane = out.k >= 1 && out.p >= 0 && out.p <= 1 && out.temperature >= 0 && std::isfinite(out.temperature);
  if (!sane) {
    return Fail(ErrorCode::kMetadataLint, "sampler k {}, p {}, temperature {}: expected k >= 1, p from 0 to 1, temperature >= 0", out.k,
                out.p, out.temperature);
  }
  return out;
}

bool IsEmpty(const BundleMetadata& metadata) {
  return !metadata.start_token && metadata.stop_tokens.empty() && !HasTurns(metadata) && metadata.max_num_tokens == 0 &&
         metadata.model_type.empty();
}

Result<BundleMetadata> FromLlmMetadata(const proto::LlmMetadata& message) {
  BundleMetadata out;
  if (message.has_start_token()) out.start_token = TRY(ReadToken("start_token", message.start_token()));
  for (const proto::TokenUnion& token : message.stop_tokens()) out.stop_tokens.push_back(TRY(ReadToken("stop_tokens", token)));
  out.user = TRY(ReadAffixes("prompt_templates.user", message.prompt_templates().user()));
  out.model = TRY(ReadAffixes("prompt_templates.model", message.prompt_templates().model()));
  out.sampler = message.has_sampler_params() ? TRY(ReadSampler(message.sampler_params())) : kClientDefaultSampler;
  out.max_num_tokens = message.max_num_tokens();
  if (out.max_num_tokens < 0) return Fail(ErrorCode::kMetadataLint, "max_num_tokens is {}", out.max_num_tokens);
  if (message.has_llm_model_type()) out.model_type = NameOf(message.llm_model_type());
  return out;
}

Result<BundleMetadata> FromLlmParameters(const proto::LlmParameters& message) {
  BundleMetadata out;
  if (message.has_start_token()) out.start_token = TRY(ReadTokenText("start_token", message.start_token()));
  if (message.has_start_token_id()) out.start_token = TRY(ReadId("start_token_id", message.start_token_id()));
  for (const std::string& text : message.stop_tokens()) out.stop_tokens.push_back(TRY(ReadTokenText("stop_tokens", text)));
  for (const int32_t id : message.stop_token_ids()) out.stop_tokens.push_back(TRY(ReadId("stop_token_ids", id)));
  if (message.has_prompt_templates()) {
    out.user = TRY(ReadAffixes("prompt_templates.user_template", message.prompt_templates().user_template()));
    out.model = TRY(ReadAffixes("prompt_templates.model_template", message.prompt_templates().model_template()));
  } else {
    // The older spelling does not say where the user's suffix ends and the model's prefix begins; a turn reads the same either way.
    out.user.prefix = TRY(ReadText("prompt_template", message.prompt_template().prompt_prefix()));
    out.user.suffix = TRY(ReadText("prompt_template", message.prompt_template().prompt_suffix()));
  }
  out.sampler = kClientDefaultSampler;
  return out;
}

template <typename Message>
std::optional<Message> Parse(ByteView bytes) {
  Message message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return std::nullopt;
  return message;
}

Result<BundleMetadata> Read(Container container, ByteView bytes) {
  // M1: the client's own rule for a .task is "LlmMetadata if it has a start token, else LlmParameters".
  const std::optional<proto::LlmMetadata> metadata = Parse<proto::LlmMetadata>(bytes);
  const bool has_start = metadata && metadata->start_token().token_union_case() != proto::TokenUnion::TOKEN_UNION_NOT_SET;
  if (metadata && (container == Container::kLitertlm || has_start)) return FromLlmMetadata(*metadata);
  if (container == Container::kLitertlm)
    return Fail(ErrorCode::kMetadataMalformed, "{} bytes are not an LlmMetadata message", bytes.size());
  const std::optional<proto::LlmParameters> parameters = Parse<proto::LlmParameters>(bytes);
  if (!parameters) return Fail(ErrorCode::kMetadataMalformed, "{} bytes are neither LlmMetadata nor LlmParameters", bytes.size());
  return FromLlmParameters(*parameters);
}

}  // namespace

std::string EncodeMetadata(Container container, const BundleMetadata& metadata) {
  // No map and no unknown field is in these messages, so serialization is deterministic (M8).
  return container == Container::kTask ? ToLlmParameters(metadata).SerializeAsString() : ToLlmMetadata(metadata).SerializeAsString();
}

Result<BundleMetadata> DecodeMetadata(Container container, ByteView bytes) {
  if (bytes.size() > kLargestMessage)
    return Fail(ErrorCode::kMetadataMalformed, "{} bytes, at most {} are read", bytes.size(), kLargestMessage);
  BundleMetadata metadata = TRY(Read(container, bytes));
  if (IsEmpty(metadata)) return Fail(ErrorCode::kMetadataMalformed, "none of the known fields is in these {} bytes", bytes.size());
  return metadata;
}

}  // namespace taskpress
