// How a section is called in a `.litertlm`: data type and items <-> our SectionKind and name.
//
// A client finds a section by its data type and, for models, its item "model_type". Sections that no SectionKind stands for keep what they
// are through their name, so that they survive being read and written again.
#ifndef TASKPRESS_SCHEMA_LITERTLM_SECTIONS_H_
#define TASKPRESS_SCHEMA_LITERTLM_SECTIONS_H_

#include <compare>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "schema/bundle.h"
#include "schema/litertlm_generated.h"

namespace taskpress {

using LitertlmItems = std::vector<std::pair<std::string, std::string>>;

// What a client looks a section up by; two sections with one key are a duplicate (L8).
struct LitertlmKey {
  litertlm::AnySectionDataType type = litertlm::AnySectionDataType::NONE;
  std::string model_type;  // lower case
  std::string name;        // of generic data, which clients do not look up at all
  auto operator<=>(const LitertlmKey&) const = default;

  // Generic data without a name may occur several times.
  [[nodiscard]] bool IsNameless() const {
    return type == litertlm::AnySectionDataType::GenericBinaryData && model_type.empty() && name.empty();
  }
};
LitertlmKey KeyOf(litertlm::AnySectionDataType type, const LitertlmItems& items);
SectionKind KindOf(const LitertlmKey& key);
// SectionInfo::name, or for kOther a name that IdentityOf() turns back into the same data type; `index` tells nameless sections apart.
std::string NameOf(const LitertlmKey& key, size_t index);
// LiteRT-LM refuses a whole file for one model_type it does not know.
bool IsModelTypeOfClients(std::string_view model_type);

// The data type and items under which a section is found again as what it is.
struct LitertlmIdentity {
  litertlm::AnySectionDataType type = litertlm::AnySectionDataType::NONE;
  LitertlmItems items;
};
LitertlmIdentity IdentityOf(const SectionToWrite& section);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_LITERTLM_SECTIONS_H_
