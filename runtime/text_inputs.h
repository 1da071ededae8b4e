// What a call of a text signature is fed with, as LiteRT-LM does it: embeddings row by row from the embedder members, positions, mask.
#ifndef TASKPRESS_RUNTIME_TEXT_INPUTS_H_
#define TASKPRESS_RUNTIME_TEXT_INPUTS_H_

#include <cstdint>
#include <optional>
#include <span>

#include "runtime/executor.h"
#include "runtime/row_embedder.h"
#include "runtime/session.h"
#include "runtime/shared_runtime.h"
#include "runtime/text_signatures.h"
#include "schema/base/error.h"

namespace taskpress {

class TextInputs {
 public:
  // `model` and `shared` must outlive it. kBundleSectionMissing without the per-layer embedder that the signatures need, and the errors of
  // RowEmbedder::Create.
  static Result<TextInputs> Create(const TextModel& model, const TextSignatures& signatures, SharedRuntime& shared);

  // Fills the inputs of one call that are no states. Tokens, at most signature.tokens, are at `position` and behind it; the empty rows get
  // position 0, token 0's embedding and a mask that is closed throughout. kRuntimeIndex for a token that the tables lack.
  Status Fill(Executor& executor, const TextSignature& signature, std::span<const int32_t> tokens, int64_t position);

 private:
  TextInputs(RowEmbedder embedder, std::optional<RowEmbedder> per_layer, int64_t context_length)
      : embedder_(std::move(embedder)), per_layer_embedder_(std::move(per_layer)), context_length_(context_length) {}

  RowEmbedder embedder_;
  std::optional<RowEmbedder> per_layer_embedder_;
  int64_t context_length_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_TEXT_INPUTS_H_
