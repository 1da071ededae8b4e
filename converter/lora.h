// A LoRA adapter as PEFT saves it, merged into the checkpoint it was trained on while rows are read.
//
// W' = W + scale * B A, with B [out, rank], A [rank, in] and scale = lora_alpha / rank (sqrt(rank) for rank-stabilised LoRA); Hu et al.,
// "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1. Nothing is written and no matrix is kept.
#ifndef TASKPRESS_CONVERTER_LORA_H_
#define TASKPRESS_CONVERTER_LORA_H_

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "converter/checkpoint.h"
#include "schema/base/error.h"

namespace taskpress {

struct MergedCheckpoint {
  std::shared_ptr<const Checkpoint> checkpoint;  // the tensors of the base, with other values
  std::vector<std::string> changed;              // names of the tensors with other values, sorted
  std::vector<std::string> notes;
};

// `folder` holds adapter_config.json and adapter_model.safetensors; rules A1.. of FORMATS.md, LoRA adapter. kLoraAdapter lists every
// target that the base lacks or that does not fit; kLoraUnsupported lists what merging would have to leave out.
Result<MergedCheckpoint> MergeLora(std::shared_ptr<const Checkpoint> base, const std::filesystem::path& folder);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_LORA_H_
