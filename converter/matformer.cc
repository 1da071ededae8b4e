#include "converter/matformer.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <numeric>
#include <utility>

#include "converter/model_family.h"
#include "schema/base/text.h"
#include "schema/json.h"

// P1 to P6 are the rules of FORMATS.md, section MatFormer slice.
namespace taskpress {
namespace {

constexpr int64_t kE4bLayers = 35;
constexpr int64_t kNarrow = 8192;
constexpr int64_t kWide = 16384;

// clang-format off
constexpr auto kPublished = std::to_array<PublishedSlice>({
    {"E1.91B (official E2B)", "E1.91B", "",                   "20-24", 1'905'495'648},
    {"E1.96B (layer-level)",  "E1.96B", "4",                  "20-24", 1'955'827'296},
    {"E2.54B (layer-level)",  "E2.54B", "4,20-24",            "",      2'520'873'456},
    {"E2.69B (layer-level)",  "E2.69B", "4,9,14,19-24",       "",      2'671'868'400},
    {"E2.98B (layer-level)",  "E2.98B", "15-24,30-34",        "",      2'973'858'288},
    {"E3.18B (layer-level)",  "E3.18B", "4,9-24,29,34",       "",      3'175'184'880},
    {"E3.39B (layer-level)",  "E3.39B", "4,9-29,34",          "",      3'376'511'472},
    {"E3.59B (layer-level)",  "E3.59B", "4-29,34",            "",      3'577'838'064},
    {"E3.79B (layer-level)",  "E3.79B", "4-34",               "",      3'779'164'656},
    {"E2.49B (block-level)",  "E2.49B", "20-24",              "",      2'470'541'808},
    {"E2.73B (block-level)",  "E2.73B", "15-24",              "",      2'722'200'048},
    {"E2.98B (block-level)",  "E2.98B", "10-24",              "",      2'973'858'288},
    {"E3.24B (block-level)",  "E3.24B", "10-29",              "",      3'225'516'528},
    {"E3.49B (block-level)",  "E3.49B", "5-29",               "",      3'477'174'768},
    {"E3.79B (block-level)",  "E3.79B", "5-34",               "",      3'728'833'008},
    {"E3.98B (main model)",   "E3.98B", "0-34",               "",      3'980'491'248},
});
// clang-format on

// "4,9-24" -> 4, 9, 10, ... 24; text of the table above.
std::vector<int64_t> ParseRanges(std::string_view text) {
  std::vector<int64_t> values;
  while (!text.empty()) {
    int64_t first = 0;
    const char* end = std::from_chars(text.begin(), text.end(), first).ptr;
    int64_t last = first;
    if (end != text.end() && *end == '-') end = std::from_chars(end + 1, text.end(), last).ptr;
    for (int64_t value = first; value <= last; ++value) values.push_back(value);
    text.remove_prefix(static_cast<size_t>(end - text.begin()));
    if (text.starts_with(',')) text.remove_prefix(1);
  }
  return values;
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

std::string NamesOf(std::span<const PublishedSlice* const> slices) {
  std::string names;
  for (const PublishedSlice* slice : slices) names += Format("{}\"{}\"", names.empty() ? "" : ", ", slice->name);
  return names;
}

// P2: the name, or a size with or without its E. The data set's own "Config for ..." in front is not part of the name.
Result<const PublishedSlice*> FindPublished(std::string_view spec) {
  std::string wanted = Lower(spec);
  constexpr std::string_view kPrefix = "config for ";
  if (wanted.starts_with(kPrefix)) wanted.erase(0, kPrefix.size());
  if (wanted == "official e2b model" || wanted == "e2b") return &kPublished[0];
  std::vector<const PublishedSlice*> found;
  std::vector<const PublishedSlice*> all;
  for (const PublishedSlice& slice : kPublished) {
    all.push_back(&slice);
    if (Lower(slice.name) == wanted) return &slice;
    const std::string size = Lower(slice.size);
    if (size == wanted || size.substr(1) == wanted) found.push_back(&slice);
  }
  if (found.size() == 1) return found[0];
  if (found.size() > 1) {
    return Fail(ErrorCode::kSlice, "\"{}\" is the size of {} slices; say which: {}", Printable(spec), found.size(), NamesOf(found));
  }
  return Fail(ErrorCode::kSlice, "\"{}\" is neither a JSON file nor a published slice; those are e2b, e4b, {}", Printable(spec),
              NamesOf(all));
}

Result<MatformerSlice> FromPublished(const PublishedSlice& published, const TextConfig& config) {
  const bool is_e4b =
      config.num_hidden_layers == kE4bLayers && std::ranges::all_of(config.intermediate_size, [](int64_t width) { return width == kWide; });
  if (!is_e4b) {
    return Fail(ErrorCode::kSlice, "{} is a slice of E4B, {} layers of width {}; this checkpoint has {} layers. Write a JSON file for it",
                published.name, kE4bLayers, kWide, config.num_hidden_layers);
  }
  MatformerSlice slice;
  const std::vector<int64_t> skipped = ParseRanges(published.skipped);
  const std::vector<int64_t> wide = ParseRanges(published.wide_layers);
  for (int64_t layer = 0; layer < kE4bLayers; ++layer) {
    if (std::ranges::find(skipped, layer) != skipped.end()) continue;
    const auto index = static_cast<int64_t>(slice.kept_layers.size());
    slice.kept_layers.push_back(layer);
    slice.ffn_widths.push_back(std::ranges::find(wide, index) != wide.end() ? kWide : kNarrow);
  }
  return slice;
}

// P3: {"ffn": 8192 or [...], "skip": [...]}, nothing else.
Result<MatformerSlice> FromJson(const Json& json, const TextConfig& config) {
  if (!json.is_object()) return Fail(ErrorCode::kSlice, "an object with \"ffn\" and \"skip\" is needed");
  for (const auto& [key, value] : json.items()) {
    if (key != "ffn" && key != "skip") return Fail(ErrorCode::kSlice, "unknown key \"{}\"; there are \"ffn\" and \"skip\"", Printable(key));
  }
  const auto integers = [](const Json& list) {
    return list.is_array() && std::ranges::all_of(list, [](const Json& entry) { return entry.is_number_integer(); });
  };
  std::vector<int64_t> skipped;
  if (json.contains("skip")) {
    if (!integers(json["skip"]))
      return Fail(ErrorCode::kSlice, "\"skip\" is a list of layers, found {}", json["skip"].dump().substr(0, 60));
    skipped = json["skip"].get<std::vector<int64_t>>();
  }
  MatformerSlice slice;
  for (const int64_t layer : skipped) {
    if (layer < 0 || layer >= config.num_hidden_layers) {
      return Fail(ErrorCode::kSlice, "\"skip\" names layer {}, the checkpoint has 0 to {}", layer, config.num_hidden_layers - 1);
    }
  }
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (std::ranges::find(skipped, layer) == skipped.end()) slice.kept_layers.push_back(layer);
  }
  const Json ffn = json.value("ffn", Json());
  if (ffn.is_null()) {
    for (const int64_t layer : slice.kept_layers) slice.ffn_widths.push_back(config.intermediate_size[static_cast<size_t>(layer)]);
  } else if (ffn.is_number_integer()) {
    slice.ffn_widths.assign(slice.kept_layers.size(), ffn.get<int64_t>());
  } else if (integers(ffn)) {
    slice.ffn_widths = ffn.get<std::vector<int64_t>>();
  } else {
    return Fail(ErrorCode::kSlice, "\"ffn\" is a width or a list of widths, found {}", ffn.dump().substr(0, 60));
  }
  return slice;
}

bool IsMatformer(const TextConfig& config) {
  return std::ranges::any_of(config.family->weights, [](const WeightRow& row) { return row.axis == MatFormerAxis::kFfnRows; });
}

// P4 to P6, for slices of every origin.
Status CheckSlice(const MatformerSlice& slice, const TextConfig& config) {
  if (slice.kept_layers.empty()) return Fail(ErrorCode::kSlice, "no layer is left");
  if (slice.ffn_widths.size() != slice.kept_layers.size()) {
    return Fail(ErrorCode::kSlice, "{} widths for the {} layers that are kept", slice.ffn_widths.size(), slice.kept_layers.size());
  }
  for (size_t i = 0; i < slice.kept_layers.size(); ++i) {
    const int64_t full = config.intermediate_size[static_cast<size_t>(slice.kept_layers[i])];
    const int64_t width = slice.ffn_widths[i];
    if (width < 2 || width > full || width % 2 != 0) {
      return Fail(ErrorCode::kSlice, "layer {}: width {}, possible are even ones from 2 to the checkpoint's {}", slice.kept_layers[i],
                  width, full);
    }
  }
  for (int64_t layer = config.first_kv_shared_layer(); layer < config.num_hidden_layers; ++layer) {
    const int64_t source = config.kv_source_layer(layer);
    if (std::ranges::find(slice.kept_layers, layer) == slice.kept_layers.end()) continue;
    if (std::ranges::find(slice.kept_layers, source) == slice.kept_layers.end()) {
      return Fail(ErrorCode::kSlice, "layer {} cannot be left out: layer {} and others read its keys and values", source, layer);
    }
  }
  if (slice.kept_layers.front() >= config.first_kv_shared_layer()) return Fail(ErrorCode::kSlice, "no layer with its own keys is left");
  return {};
}

}  // namespace

std::span<const PublishedSlice> PublishedSlices() { return kPublished; }

Result<MatformerSlice> ResolveSlice(const std::string& spec, const TextConfig& config) {
  MatformerSlice slice;
  std::error_code ignored;
  if (Lower(spec) == "e4b") {
    slice.kept_layers.resize(static_cast<size_t>(config.num_hidden_layers));
    std::iota(slice.kept_layers.begin(), slice.kept_layers.end(), 0);
    slice.ffn_widths = config.intermediate_size;
    return slice;
  }
  if (!IsMatformer(config)) {  // P1
    return Fail(ErrorCode::kSlice, "{} is no MatFormer: it has no smaller models inside; \"e4b\" converts it as it is",
                config.family->title);
  }
  if (std::filesystem::is_regular_file(spec, ignored)) {
    Result<MatformerSlice> read = FromJson(TRY(ReadJsonFile(spec)), config);
    if (!read) return std::unexpected(WithContext(std::move(read).error(), spec));
    slice = *std::move(read);
  } else {
    slice = TRY(FromPublished(*TRY(FindPublished(spec)), config));
  }
  TRY(CheckSlice(slice, config));
  return slice;
}

TextConfig SliceConfig(const TextConfig& config, const MatformerSlice& slice) {
  TextConfig sliced = config;
  sliced.num_hidden_layers = static_cast<int64_t>(slice.kept_layers.size());
  sliced.intermediate_size = slice.ffn_widths;
  sliced.num_kv_shared_layers =
      std::ranges::count_if(slice.kept_layers, [&](int64_t layer) { return layer >= config.first_kv_shared_layer(); });
  sliced.layer_types.clear();
  sliced.activation_sparsity_pattern.clear();
  for (const int64_t layer : slice.kept_layers) {
    sliced.layer_types.push_back(config.layer_types[static_cast<size_t>(layer)]);
    if (!config.activation_sparsity_pattern.empty()) {
      sliced.activation_sparsity_pattern.push_back(config.activation_sparsity_pattern[static_cast<size_t>(layer)]);
    }
  }
  return sliced;
}

}  // namespace taskpress
