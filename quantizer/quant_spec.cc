#include "quantizer/quant_spec.h"

#include <algorithm>
#include <array>
#include <utility>

#include "schema/base/error.h"

namespace taskpress {
namespace {

struct SpecName {
  std::string_view name;
  DType type;
  int64_t block_size;
};
constexpr auto kNames = std::to_array<SpecName>({
    {"f32", DType::kF32, 0},
    {"f16", DType::kF16, 0},
    {"int8", DType::kI8, 0},
    {"int4", DType::kI4, 0},
    {"int4_block32", DType::kI4, 32},
    {"int4_block64", DType::kI4, 64},
    {"int4_block128", DType::kI4, 128},
});

constexpr std::string_view kTwoTerms = "_two_terms";

constexpr std::array<std::string_view, 3> kMethods = {"absmax", "clip", "gptq"};

}  // namespace

std::optional<QuantSpec> QuantSpecFromName(std::string_view name) {
  const bool two_terms = name.ends_with(kTwoTerms);
  if (two_terms) name.remove_suffix(kTwoTerms.size());
  for (const SpecName& known : kNames) {
    if (known.name != name) continue;
    const QuantSpec spec{.type = known.type, .block_size = known.block_size, .two_terms = two_terms};
    return two_terms && !spec.is_quantized() ? std::nullopt : std::optional(spec);
  }
  return std::nullopt;
}

std::string NameOf(const QuantSpec& spec) {
  const std::string_view terms = spec.two_terms ? kTwoTerms : "";
  for (const SpecName& known : kNames) {
    if (known.type == spec.type && known.block_size == spec.block_size) return std::string(known.name) + std::string(terms);
  }
  return std::string(NameOf(spec.type)) + (spec.block_size == 0 ? "" : Format("_block{}", spec.block_size)) + std::string(terms);
}

std::string QuantSpecNames() {
  std::string names;
  for (const SpecName& known : kNames) names += (names.empty() ? "" : ", ") + std::string(known.name);
  return Format("{}; integers also with {} behind", names, kTwoTerms);
}

std::optional<QuantMethod> QuantMethodFromName(std::string_view name) {
  const auto* const found = std::ranges::find(kMethods, name);
  if (found == kMethods.end()) return std::nullopt;
  return static_cast<QuantMethod>(found - kMethods.begin());
}

std::string_view NameOf(QuantMethod method) { return kMethods[std::to_underlying(method)]; }

}  // namespace taskpress
