#include "schema/text_contract.h"

#include <algorithm>
#include <set>

namespace taskpress {
namespace {

constexpr int64_t kShortPrefill = 32;  // clients pad the rest of a prompt to a prefill length; near the context's end only a short one fits

const Tensor& TensorOf(const Graph& graph, const Signature& signature, TensorId id) {
  return graph.subgraphs[static_cast<size_t>(signature.subgraph)].tensors[static_cast<size_t>(id)];
}

Result<const Tensor*> Find(const Graph& graph, const Signature& signature, const std::vector<NamedTensor>& side, std::string_view name) {
  const TensorId id = FindTensor(side, name);
  if (id == kNone) return Fail(ErrorCode::kBundleContract, "signature \"{}\" has no tensor \"{}\"", signature.key, name);
  return &TensorOf(graph, signature, id);
}

Status Expect(const Signature& signature, std::string_view name, const Tensor& tensor, DType type, const Shape& shape) {
  if (tensor.type == type && tensor.shape == shape) return {};
  return Fail(ErrorCode::kBundleContract, "signature \"{}\", \"{}\": {} {} expected, found {} {}", signature.key, name, NameOf(type),
              ToString(shape), NameOf(tensor.type), ToString(tensor.shape));
}

// One signature, one int32 input of one element, one f32 output [1, 1, ...]; returns the output's shape.
Result<Shape> CheckEmbedder(const Graph& graph, std::string_view member) {
  if (graph.signatures.size() != 1 || graph.signatures[0].inputs.size() != 1 || graph.signatures[0].outputs.size() != 1) {
    return Fail(ErrorCode::kBundleContract, "{}: one signature with one input and one output expected", member);
  }
  const Signature& signature = graph.signatures[0];
  const Tensor& in = TensorOf(graph, signature, signature.inputs[0].second);
  const Tensor& out = TensorOf(graph, signature, signature.outputs[0].second);
  if (in.type != DType::kI32 || NumElements(in.shape) != 1) {
    return Fail(ErrorCode::kBundleContract, "{}: input i32 [1,1] expected, found {} {}", member, NameOf(in.type), ToString(in.shape));
  }
  if (out.type != DType::kF32 || out.shape.size() < 3 || out.shape[0] != 1 || out.shape[1] != 1) {
    return Fail(ErrorCode::kBundleContract, "{}: output f32 [1,1,...] expected, found {} {}", member, NameOf(out.type),
                ToString(out.shape));
  }
  return out.shape;
}

// kv_cache_k_0, kv_cache_v_0, ... without gaps, each with the same type and shape as input and output of every signature.
Status CheckCaches(const Graph& graph, const Signature& signature, const Signature& decode, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    for (const char* kind : {"k", "v"}) {
      const std::string name = std::format("kv_cache_{}_{}", kind, i);
      const Tensor& expected = *TRY(Find(graph, decode, decode.inputs, name));
      if (expected.type != DType::kF32 || expected.shape.size() != 4 || expected.shape[0] != 1) {
        return Fail(ErrorCode::kBundleContract, "signature \"{}\", \"{}\": f32 of rank 4 with batch 1 expected, found {} {}", decode.key,
                    name, NameOf(expected.type), ToString(expected.shape));
      }
      TRY(Expect(signature, name, *TRY(Find(graph, signature, signature.inputs, name)), expected.type, expected.shape));
      TRY(Expect(signature, name, *TRY(Find(graph, signature, signature.outputs, name)), expected.type, expected.shape));
    }
  }
  return {};
}

int64_t CountCaches(const Signature& decode) {
  return std::ranges::count_if(decode.inputs, [](const NamedTensor& input) { return input.first.starts_with("kv_cache_k_"); });
}

Status CheckCall(const Graph& graph, const Signature& signature, const Signature& decode, const TextContract& contract, int64_t tokens) {
  const auto input = [&](std::string_view name) { return Find(graph, signature, signature.inputs, name); };
  TRY(Expect(signature, "embeddings", *TRY(input("embeddings")), DType::kF32, {1, tokens, contract.hidden_size}));
  if (contract.num_layers > 0) {
    TRY(Expect(signature, "per_layer_embeddings", *TRY(input("per_layer_embeddings")), DType::kF32,
               {1, tokens, contract.num_layers, contract.per_layer_size}));
  }
  TRY(Expect(signature, "mask", *TRY(input("mask")), DType::kF32, {1, 1, tokens, contract.context}));
  return CheckCaches(graph, signature, decode, contract.num_caches);
}

Result<int64_t> TokensOf(const Graph& graph, const Signature& signature) {
  const Tensor& positions = *TRY(Find(graph, signature, signature.inputs, "input_pos"));
  if (positions.type != DType::kI32 || positions.shape.size() != 1 || positions.shape[0] < 1) {
    return Fail(ErrorCode::kBundleContract, "signature \"{}\", \"input_pos\": i32 [tokens] expected, found {} {}", signature.key,
                NameOf(positions.type), ToString(positions.shape));
  }
  return positions.shape[0];
}

}  // namespace

Result<TextContract> CheckTextContract(const Graph& embedder, const Graph* per_layer_embedder, const Graph& prefill_decode) {
  TextContract contract;
  const Signature* decode = prefill_decode.FindSignature("decode");
  if (decode == nullptr) return Fail(ErrorCode::kBundleContract, "prefill_decode has no signature \"decode\"");
  contract.hidden_size = TRY(CheckEmbedder(embedder, "embedder")).back();
  if (per_layer_embedder != nullptr) {
    const Shape shape = TRY(CheckEmbedder(*per_layer_embedder, "per_layer_embedder"));
    if (shape.size() != 4)
      return Fail(ErrorCode::kBundleContract, "per_layer_embedder: output [1,1,layers,size] expected, found {}", ToString(shape));
    contract.num_layers = shape[2];
    contract.per_layer_size = shape[3];
  }
  const Tensor& mask = *TRY(Find(prefill_decode, *decode, decode->inputs, "mask"));
  const Tensor& logits = *TRY(Find(prefill_decode, *decode, decode->outputs, "logits"));
  if (mask.shape.size() != 4) return Fail(ErrorCode::kBundleContract, "\"mask\" of rank 4 expected, found {}", ToString(mask.shape));
  contract.context = mask.shape.back();
  contract.vocab_size = logits.shape.empty() ? 0 : logits.shape.back();
  contract.num_caches = CountCaches(*decode);
  TRY(Expect(*decode, "logits", logits, DType::kF32, {1, 1, contract.vocab_size}));
  for (const Signature& signature : prefill_decode.signatures) {
    const int64_t tokens = TRY(TokensOf(prefill_decode, signature));
    TRY(CheckCall(prefill_decode, signature, *decode, contract, tokens));
    if (signature.key.starts_with("prefill")) contract.prefill_lengths.push_back(tokens);
    if (signature.key.starts_with("score")) {
      TRY(Expect(signature, "logits", *TRY(Find(prefill_decode, signature, signature.outputs, "logits")), DType::kF32,
                 {1, tokens, contract.vocab_size}));
      contract.score_length = tokens;
    }
  }
  if (TRY(TokensOf(prefill_decode, *decode)) != 1) return Fail(ErrorCode::kBundleContract, "decode takes one token");
  std::ranges::sort(contract.prefill_lengths);
  if (contract.prefill_lengths.empty()) return Fail(ErrorCode::kBundleContract, "prefill_decode has no prefill signature");
  if (std::ranges::adjacent_find(contract.prefill_lengths) != contract.prefill_lengths.end()) {
    return Fail(ErrorCode::kBundleContract, "two prefill signatures have the same length; clients use one of them");
  }
  if (contract.prefill_lengths.front() > kShortPrefill) {
    return Fail(ErrorCode::kBundleContract, "the shortest prefill has {} tokens; at most {} are needed to reach the end of the context",
                contract.prefill_lengths.front(), kShortPrefill);
  }
  if (contract.prefill_lengths.back() > contract.context) {
    return Fail(ErrorCode::kBundleContract, "prefill of {} tokens exceeds the context of {}", contract.prefill_lengths.back(),
                contract.context);
  }
  return contract;
}

}  // namespace taskpress
