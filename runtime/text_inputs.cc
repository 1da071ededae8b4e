#include "runtime/text_inputs.h"

#include <algorithm>
#include <cfloat>

namespace taskpress {
namespace {

// LiteRT-LM's value: adding a moderate negative number to it (a sliding window's mask) does not overflow to infinity.
constexpr float kMasked = -0.7F * FLT_MAX;

Status FillRows(RowEmbedder& embedder, std::span<const int32_t> tokens, std::span<float> rows) {
  const size_t width = embedder.padding_row().size();
  for (size_t i = 0; i * width < rows.size(); ++i) {
    const std::span<const float> row = i < tokens.size() ? TRY(embedder.Embed(tokens[i])) : embedder.padding_row();
    std::ranges::copy(row, rows.subspan(i * width).begin());
  }
  return {};
}

}  // namespace

Result<TextInputs> TextInputs::Create(const TextModel& model, const TextSignatures& signatures, SharedRuntime& shared) {
  RowEmbedder embedder = TRY(RowEmbedder::Create(model.embedder, shared, signatures.hidden_size));
  std::optional<RowEmbedder> per_layer;
  if (signatures.per_layer_size != 0) {
    if (!model.per_layer_embedder) {
      return Fail(ErrorCode::kBundleSectionMissing, "prefill_decode reads per_layer_embeddings, but there is no per-layer embedder");
    }
    per_layer = TRY(RowEmbedder::Create(*model.per_layer_embedder, shared, signatures.per_layer_size));
  }
  return TextInputs(std::move(embedder), std::move(per_layer), signatures.context_length);
}

Status TextInputs::Fill(Executor& executor, const TextSignature& signature, std::span<const int32_t> tokens, int64_t position) {
  TRY(FillRows(embedder_, tokens, executor.InputAs<float>(signature.embeddings)));
  if (signature.per_layer_embeddings != kNone) {
    TRY(FillRows(*per_layer_embedder_, tokens, executor.InputAs<float>(signature.per_layer_embeddings)));
  }
  const auto count = static_cast<int64_t>(tokens.size());
  const std::span<int32_t> positions = executor.InputAs<int32_t>(signature.positions);
  for (size_t i = 0; i < positions.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    positions[i] = row < count ? static_cast<int32_t>(position + row) : 0;
  }
  // Row i sees everything up to itself; the cache behind it holds older contexts or nothing.
  const std::span<float> mask = executor.InputAs<float>(signature.mask);
  std::ranges::fill(mask, kMasked);
  for (int64_t row = 0; row < count; ++row) std::fill_n(mask.begin() + row * context_length_, position + row + 1, 0.0F);
  return {};
}

}  // namespace taskpress
