#include "schema/litertlm_sections.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "schema/base/text.h"

namespace taskpress {
namespace {

using litertlm::AnySectionDataType;

constexpr std::string_view kModelType = "model_type";
constexpr std::string_view kName = "name";

// Data types that no SectionKind stands for.
struct OtherType {
  AnySectionDataType type;
  std::string_view name;
};
constexpr auto kOtherTypes = std::to_array<OtherType>({
    {AnySectionDataType::GenericBinaryData, "generic_binary"},
    {AnySectionDataType::HF_Tokenizer_Zlib, "hf_tokenizer_zlib"},
    {AnySectionDataType::TFLiteWeights, "tflite_weights"},
    {AnySectionDataType::EmbeddingMetadataProto, "embedding_metadata"},
    {AnySectionDataType::ExecutorMetadataProto, "executor_metadata"},
    {AnySectionDataType::TtsMetadataProto, "tts_metadata"},
    {AnySectionDataType::AsrMetadataProto, "asr_metadata"},
});
// Types newer than this table: "type_77".
constexpr std::string_view kUnknownTypePrefix = "type_";

// Models that clients know by name and we only carry along.
constexpr auto kOtherModels = std::to_array<std::string_view>({"tf_lite_aux", "tf_lite_audio_frontend", "tf_lite_artisan_text_decoder",
                                                               "tf_lite_mtp_drafter", "tf_lite_mtp_aux", "tf_lite_text_encoder"});

std::string NameOfType(AnySectionDataType type) {
  for (const OtherType& other : kOtherTypes) {
    if (other.type == type) return std::string(other.name);
  }
  return Format("{}{}", kUnknownTypePrefix, std::to_underlying(type));
}

std::optional<AnySectionDataType> TypeOfName(std::string_view name) {
  for (const OtherType& other : kOtherTypes) {
    if (other.name == name) return other.type;
  }
  if (!name.starts_with(kUnknownTypePrefix)) return std::nullopt;
  name.remove_prefix(kUnknownTypePrefix.size());
  uint8_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return static_cast<AnySectionDataType>(number);
}

std::string_view FindItem(const LitertlmItems& items, std::string_view key) {
  for (const auto& [name, value] : items) {
    if (name == key) return value;
  }
  return {};
}

// {key: value} in front, the other items behind it in their order.
LitertlmItems WithItem(const LitertlmItems& items, std::string_view key, std::string_view value) {
  LitertlmItems out;
  out.emplace_back(key, value);
  std::ranges::copy_if(items, std::back_inserter(out), [&](const auto& item) { return item.first != key; });
  return out;
}

}  // namespace

LitertlmKey KeyOf(AnySectionDataType type, const LitertlmItems& items) {
  LitertlmKey key{.type = type, .model_type = ToLowerAscii(FindItem(items, kModelType)), .name = {}};
  // The client's rule for the first files, which had one model and no items (L7).
  if (type == AnySectionDataType::TFLiteModel && key.model_type.empty()) key.model_type = InfoOf(SectionKind::kPrefillDecode).litertlm_type;
  if (type == AnySectionDataType::GenericBinaryData) key.name = FindItem(items, kName);
  return key;
}

SectionKind KindOf(const LitertlmKey& key) {
  for (const SectionInfo& info : AllSections()) {
    const bool same = info.litertlm_data_type == std::to_underlying(key.type) && info.litertlm_type == key.model_type;
    const bool named = key.type != AnySectionDataType::GenericBinaryData || key.name == info.name;
    if (same && named && info.kind != SectionKind::kOther) return info.kind;
  }
  return SectionKind::kOther;
}

std::string NameOf(const LitertlmKey& key, size_t index) {
  if (const SectionKind kind = KindOf(key); kind != SectionKind::kOther) return std::string(InfoOf(kind).name);
  if (key.type == AnySectionDataType::TFLiteModel) return key.model_type;
  if (!key.name.empty()) return key.name;
  const std::string type = NameOfType(key.type);
  return key.IsNameless() ? Format("{}_{}", type, index) : type;
}

bool IsModelTypeOfClients(std::string_view model_type) {
  return std::ranges::contains(kOtherModels, model_type) || std::ranges::contains(AllSections(), model_type, &SectionInfo::litertlm_type);
}

LitertlmIdentity IdentityOf(const SectionToWrite& section) {
  if (section.kind != SectionKind::kOther) {
    const SectionInfo& info = InfoOf(section.kind);
    const auto type = static_cast<AnySectionDataType>(info.litertlm_data_type);
    if (type == AnySectionDataType::GenericBinaryData) return {.type = type, .items = WithItem(section.items, kName, info.name)};
    return {.type = type, .items = info.is_model ? WithItem(section.items, kModelType, info.litertlm_type) : section.items};
  }
  if (const std::optional<AnySectionDataType> type = TypeOfName(section.name)) return {.type = *type, .items = section.items};
  const std::string model_type = ToLowerAscii(section.name);
  if (std::ranges::contains(kOtherModels, model_type) || !FindItem(section.items, kModelType).empty()) {
    return {.type = AnySectionDataType::TFLiteModel, .items = WithItem(section.items, kModelType, model_type)};
  }
  return {.type = AnySectionDataType::GenericBinaryData, .items = WithItem(section.items, kName, section.name)};
}

}  // namespace taskpress
