#include "converter/elastic.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "schema/base/text.h"

namespace taskpress {
namespace {

// A slice of the checkpoint as a slice of the big size: layers are counted there.
Result<MatformerSlice> InsideOf(const MatformerSlice& big, const MatformerSlice& small, const TextConfig& big_config,
                                const std::string& name) {
  MatformerSlice inside{.kept_layers = {}, .ffn_widths = small.ffn_widths};
  for (size_t i = 0; i < small.kept_layers.size(); ++i) {
    const int64_t layer = small.kept_layers[i];
    const auto found = std::ranges::find(big.kept_layers, layer);
    if (found == big.kept_layers.end()) {
      return Fail(ErrorCode::kSlice, "size \"{}\" keeps layer {} of the checkpoint, which the bundle's own slice leaves out (E12)", name,
                  layer);
    }
    const auto index = static_cast<size_t>(found - big.kept_layers.begin());
    if (small.ffn_widths[i] > big.ffn_widths[index]) {
      return Fail(ErrorCode::kSlice, "size \"{}\": layer {} of the checkpoint has width {}, in the bundle's own slice {} (E12)", name,
                  layer, small.ffn_widths[i], big.ffn_widths[index]);
    }
    inside.kept_layers.push_back(static_cast<int64_t>(index));
  }
  for (int64_t layer = 0; layer < big_config.first_kv_shared_layer(); ++layer) {
    if (std::ranges::contains(inside.kept_layers, layer)) continue;
    return Fail(
        ErrorCode::kSlice,
        "size \"{}\" leaves out layer {} of the checkpoint, which has keys and values of its own; sizes of one bundle have the same "
        "caches, so only KV-shared layers can be left out (E12)",
        name, big.kept_layers[static_cast<size_t>(layer)]);
  }
  return inside;
}

// Two names of one model would be two roots that say the same.
Status CheckDistinct(std::span<const NestedSize> sizes, const NestedSize& size) {
  for (const NestedSize& other : sizes) {
    if (ToLowerAscii(other.name) == ToLowerAscii(size.name)) {
      return Fail(ErrorCode::kSlice, "two sizes are called \"{}\" (E12)", size.name);
    }
    if (other.place.stored_layers == size.place.stored_layers && other.config.intermediate_size == size.config.intermediate_size) {
      return Fail(ErrorCode::kSlice, "sizes \"{}\" and \"{}\" are the same model (E12)", other.name, size.name);
    }
  }
  return {};
}

std::string LayerWeight(int64_t layer) { return Format("layers.{}.mlp.down_proj.weight", layer); }

// [stored layers]: every width that a size has there.
std::vector<std::vector<int64_t>> FfnCuts(std::span<const NestedSize> sizes) {
  std::vector<std::vector<int64_t>> cuts(static_cast<size_t>(sizes.front().config.num_hidden_layers));
  for (const NestedSize& size : sizes) {
    for (size_t layer = 0; layer < size.place.stored_layers.size(); ++layer) {
      cuts[static_cast<size_t>(size.place.stored_layers[layer])].push_back(size.config.intermediate_size[layer]);
    }
  }
  for (std::vector<int64_t>& widths : cuts) {
    std::ranges::sort(widths);
    widths.erase(std::ranges::unique(widths).begin(), widths.end());
  }
  return cuts;
}

}  // namespace

std::string SizeName(const std::string& spec) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(spec, ignored) ? std::filesystem::path(spec).stem().string() : spec;
}

Result<std::vector<NestedSize>> NestSizes(const TextConfig& stored, const MatformerSlice& big, const std::string& big_spec,
                                          std::span<const std::string> elastic) {
  std::vector<NestedSize> sizes;
  const TextConfig big_config = SliceConfig(stored, big);
  NestedSize first{.name = SizeName(big_spec), .config = big_config, .place = {}};
  first.place.stored_layers.resize(big.kept_layers.size());
  std::iota(first.place.stored_layers.begin(), first.place.stored_layers.end(), 0);
  sizes.push_back(std::move(first));
  for (const std::string& spec : elastic) {
    const MatformerSlice slice = TRY(ResolveSlice(spec, stored));
    NestedSize size{.name = SizeName(spec), .config = {}, .place = {}};
    const MatformerSlice inside = TRY(InsideOf(big, slice, big_config, size.name));
    size.config = SliceConfig(big_config, inside);
    size.place.stored_layers = inside.kept_layers;
    TRY(CheckDistinct(sizes, size));
    sizes.push_back(std::move(size));
  }
  const std::vector<std::vector<int64_t>> cuts = FfnCuts(sizes);
  for (NestedSize& size : sizes) size.place.ffn_cuts = cuts;
  return sizes;
}

PieceCalibrations PieceCalibrationsOf(std::span<const NestedSize> sizes, std::span<const std::shared_ptr<const Calibration>> calibrations) {
  PieceCalibrations pieces;
  for (size_t i = 0; i < std::min(sizes.size(), calibrations.size()); ++i) {
    if (calibrations[i] == nullptr) continue;
    const NestedSize& size = sizes[i];
    for (size_t layer = 0; layer < size.place.stored_layers.size(); ++layer) {
      const int64_t stored = size.place.stored_layers[layer];
      const int64_t width = size.config.intermediate_size[layer];
      if (width == size.place.ffn_cuts[static_cast<size_t>(stored)].back()) continue;  // the big one's last, too
      pieces.try_emplace({LayerWeight(stored), width}, calibrations[i], LayerWeight(static_cast<int64_t>(layer)));
    }
  }
  return pieces;
}

Status BuildSizes(const TextConfig& stored, const MatformerSlice& big, const PrepareOptions& options, const TextModelOptions& text,
                  TextWeights& weights, PreparedModel& model) {
  model.size_name = SizeName(options.slice);
  if (options.elastic.empty()) {
    model.graphs.prefill_decode = TRY(BuildPrefillDecode(model.config, weights, text));
    return {};
  }
  const std::vector<NestedSize> sizes = TRY(NestSizes(stored, big, options.slice, options.elastic));
  weights.SetPieceCalibrations(PieceCalibrationsOf(std::span(sizes).subspan(1), options.elastic_calibrations));
  model.graphs.prefill_decode = TRY(BuildPrefillDecode(model.config, weights, text, &sizes.front().place));
  for (const NestedSize& size : std::span(sizes).subspan(1)) {
    Graph graph = TRY(BuildPrefillDecode(size.config, weights, text, &size.place));
    model.smaller.push_back(
        {.name = size.name, .config = size.config, .parameters = CountParameters(size.config), .prefill_decode = std::move(graph)});
  }
  return {};
}

}  // namespace taskpress
