// A model in one GGUF file: weights under llama.cpp's names, config and tokenizer in the metadata. What its converter folded into the
// weights is undone, so that everything above sees the Hugging Face checkpoint. FORMATS, GGUF, V1..V9.
#ifndef TASKPRESS_CONVERTER_GGUF_MODEL_H_
#define TASKPRESS_CONVERTER_GGUF_MODEL_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "converter/model_files.h"
#include "schema/base/error.h"
#include "schema/base/mapped_file.h"
#include "schema/gguf.h"
#include "schema/json.h"

namespace taskpress {

// kModelTypeUnsupported for another architecture; kGgufHeader, kGgufTensor, kGgufUnsupported.
Result<std::unique_ptr<ModelFiles>> OpenGgufModel(const std::filesystem::path& path);

struct MappedGguf {
  std::shared_ptr<const MappedFile> file;
  GgufFile contents;  // views into the file
};

// The tensors under Hugging Face names below "model.", in its shapes and values: stacked weights one by one, a norm's gain without the one
// that Gemma 3's files have folded in. `text_vocab_size`: rows of a per-layer table that are kept. A tensor that is no weight of the family
// keeps its name. kGgufTensor when two tensors are the same weight.
Result<std::unique_ptr<Checkpoint>> MakeGgufCheckpoint(MappedGguf gguf, const ModelFamily& family, int64_t text_vocab_size);

// The metadata in the words of config.json. kGgufHeader for a key that is missing or of another type.
Result<Json> ConfigOfGguf(const GgufFile& gguf, const ModelFamily& family);

// A SentencePiece ModelProto of the stored pieces, scores and types, proven equal to a byte-pair encoder that works from the stored pieces
// and scores alone. kGgufHeader, kTokenizerKind, kTokenizerUnsupported, kTokenizerModel.
Result<std::string> TokenizerOfGguf(const GgufFile& gguf);

// Metadata below "<architecture>.".
class GgufFields {
 public:
  GgufFields(const GgufFile& gguf, std::string_view architecture) : gguf_(&gguf), architecture_(architecture) {}

  // As JSON; null when the key is absent.
  [[nodiscard]] Json Find(std::string_view key) const;
  Result<Json> Require(std::string_view key) const;
  // A tensor the file must have, with at least one dimension.
  Result<const GgufTensor*> RequireTensor(std::string_view name) const;

 private:
  const GgufFile* gguf_;
  std::string_view architecture_;
};

// The families' own fields, added to what ConfigOfGguf() has filled in.
Status AddGemma3nFields(const GgufFields& fields, Json& config);
Status AddGemma3Fields(const GgufFields& fields, Json& config);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_GGUF_MODEL_H_
