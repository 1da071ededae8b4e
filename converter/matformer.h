// MatFormer: a smaller model inside a Gemma 3n checkpoint is its first f feed-forward rows in each layer, with some layers left out.
// Everything else is shared, so a slice is a view of the checkpoint and a rewritten config. gemma3n-slicing-configs, Google, 2025.
#ifndef TASKPRESS_CONVERTER_MATFORMER_H_
#define TASKPRESS_CONVERTER_MATFORMER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "converter/checkpoint.h"
#include "converter/text_config.h"
#include "schema/base/error.h"

namespace taskpress {

struct MatformerSlice {
  std::vector<int64_t> kept_layers;  // of the checkpoint, ascending; their place in the list is the new index
  std::vector<int64_t> ffn_widths;   // [kept layers]
};

// A configuration that Google published for E4B: 35 layers of width 16384.
struct PublishedSlice {
  std::string_view name;         // "E2.54B (layer-level)"
  std::string_view size;         // "E2.54B"; two slices may have the same
  std::string_view wide_layers;  // new indices of width 16384, "4, 9-24"; the others have 8192
  std::string_view skipped;      // old indices, "20-24"
  int64_t effective_parameters;  // CountParameters().effective
};
std::span<const PublishedSlice> PublishedSlices();

// "e4b" (the checkpoint as it is stored), "e2b", a published name, a size that only one published slice has, or a JSON file {"ffn": width
// or [width per kept layer], "skip": [layers]}. kSlice says which rule is broken: rules P1 to P6 of FORMATS.md.
Result<MatformerSlice> ResolveSlice(const std::string& spec, const TextConfig& config);

// Every consequence for the config: layers, widths, layer types, KV sharing, sparsity.
TextConfig SliceConfig(const TextConfig& config, const MatformerSlice& slice);

// The tensors of the sliced model (the base itself when nothing is cut); those of other modalities stay as they are. `config` is the
// checkpoint's own. kWeightsMismatch for a text weight whose shape the config does not explain.
Result<std::shared_ptr<const Checkpoint>> SliceCheckpoint(std::shared_ptr<const Checkpoint> base, const TextConfig& config,
                                                          const MatformerSlice& slice);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_MATFORMER_H_
