// The tokenizer of a checkpoint folder, as the bytes that go into a bundle.
#ifndef TASKPRESS_CONVERTER_TOKENIZER_FILES_H_
#define TASKPRESS_CONVERTER_TOKENIZER_FILES_H_

#include <filesystem>

#include "schema/base/error.h"
#include "schema/byte_source.h"

namespace taskpress {

// tokenizer.model byte for byte after validation, where present; a tokenizer.json beside it must have the same pieces at the same ids
// (further entries are allowed). Without tokenizer.model one is rebuilt from tokenizer.json and proven equal to it. kTokenizerMissing,
// kTokenizerModel, kTokenizerKind, kTokenizerJson, kTokenizerUnsupported, kBadJson.
Result<SharedBytes> LoadTokenizerModel(const std::filesystem::path& checkpoint_folder);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_TOKENIZER_FILES_H_
