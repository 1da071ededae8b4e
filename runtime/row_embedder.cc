#include "runtime/row_embedder.h"

namespace taskpress {

Result<RowEmbedder> RowEmbedder::Create(const Graph& graph, SharedRuntime& shared, int64_t row_size) {
  TRY(ValidateGraph(graph));
  if (graph.signatures.empty()) return Fail(ErrorCode::kSignatureMissing, "the embedder has no signature");
  const Signature& signature = graph.signatures.front();
  const Subgraph& subgraph = graph.subgraphs[static_cast<size_t>(signature.subgraph)];
  if (signature.inputs.size() != 1 || signature.outputs.size() != 1) {
    return Fail(ErrorCode::kBundleContract, "embedder signature {}: {} inputs and {} outputs, expected one each", signature.key,
                signature.inputs.size(), signature.outputs.size());
  }
  const TensorId input = signature.inputs[0].second;
  const TensorId output = signature.outputs[0].second;
  const Tensor& token = subgraph.tensors[static_cast<size_t>(input)];
  const Tensor& row = subgraph.tensors[static_cast<size_t>(output)];
  if (token.type != DType::kI32 || NumElements(token.shape) != 1 || row.type != DType::kF32 || NumElements(row.shape) != row_size) {
    return Fail(ErrorCode::kBundleContract, "embedder signature {}: {} {} -> {} {}, expected one i32 and {} f32 values", signature.key,
                NameOf(token.type), ToString(token.shape), NameOf(row.type), ToString(row.shape), row_size);
  }
  RowEmbedder embedder(TRY(Executor::Create(graph, signature.subgraph, shared)), input, output);
  const std::span<const float> padding = TRY(embedder.Embed(0));
  embedder.padding_row_.assign(padding.begin(), padding.end());
  return embedder;
}

Result<std::span<const float>> RowEmbedder::Embed(int32_t token) {
  executor_.InputAs<int32_t>(input_)[0] = token;
  TRY(executor_.Run());
  return executor_.OutputAs<float>(output_);
}

}  // namespace taskpress
