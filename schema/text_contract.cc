#include "schema/text_contract.h"

#include <algorithm>

#include "schema/base/text.h"

namespace taskpress {
namespace {

constexpr int64_t kShortPrefill = 32;  // clients pad the rest of a prompt to a prefill length; near the context's end only a short one fits

const Tensor& TensorOf(const Graph& graph, const Signature& signature, TensorId id) {
  return graph.subgraphs[static_cast<size_t>(signature.subgraph)].tensors[static_cast<size_t>(id)];
}

std::string Where(const Signature& signature) { return Format("signature \"{}\"", Printable(signature.key)); }

// X3
Result<const Tensor*> Find(const Graph& graph, const Signature& signature, const std::vector<NamedTensor>& side, std::string_view name) {
  const TensorId id = FindTensor(side, name);
  if (id == kNone) return Fail(ErrorCode::kBundleContract, "{} has no tensor \"{}\"", Where(signature), name);
  return &TensorOf(graph, signature, id);
}

Status Expect(const Signature& signature, std::string_view name, const Tensor& tensor, DType type, const Shape& shape) {
  if (tensor.type == type && tensor.shape == shape) return {};
  return Fail(ErrorCode::kBundleContract, "{}, \"{}\": {} {} expected, found {} {}", Where(signature), name, NameOf(type), ToString(shape),
              NameOf(tensor.type), ToString(tensor.shape));
}

// X1. Returns the output's shape.
Result<Shape> CheckEmbedder(const Graph& graph, std::string_view member, size_t rank) {
  if (graph.signatures.size() != 1 || graph.signatures[0].inputs.size() != 1 || graph.signatures[0].outputs.size() != 1) {
    return Fail(ErrorCode::kBundleContract, "{}: one signature with one input and one output expected", member);
  }
  const Signature& signature = graph.signatures[0];
  const Tensor& in = TensorOf(graph, signature, signature.inputs[0].second);
  const Tensor& out = TensorOf(graph, signature, signature.outputs[0].second);
  if (in.type != DType::kI32 || NumElements(in.shape) != 1) {
    return Fail(ErrorCode::kBundleContract, "{}: input i32 [1,1] expected, found {} {}", member, NameOf(in.type), ToString(in.shape));
  }
  if (out.type != DType::kF32 || out.shape.size() != rank || out.shape[0] != 1 || out.shape[1] != 1) {
    return Fail(ErrorCode::kBundleContract, "{}: output f32 {} expected, found {} {}", member,
                rank == 3 ? "[1,1,size]" : "[1,1,layers,size]", NameOf(out.type), ToString(out.shape));
  }
  return out.shape;
}

// X2. Tokens that the head can emit are looked up at the next step.
Status CheckTables(const Graph& graph, std::string_view member, int64_t vocab_size) {
  for (const Subgraph& subgraph : graph.subgraphs) {
    for (const Op& op : subgraph.ops) {
      const bool looks_up = op.kind == OpKind::kEmbeddingLookup || op.kind == OpKind::kGather;
      if (!looks_up) continue;
      const Tensor& table = subgraph.tensors[static_cast<size_t>(op.inputs[op.kind == OpKind::kGather ? 0 : 1])];
      if (table.is_constant() && (table.shape.empty() || table.shape[0] < vocab_size)) {
        return Fail(ErrorCode::kBundleContract, "{}: table \"{}\" {} has fewer rows than there are logits, {}", member,
                    Printable(table.name), ToString(table.shape), vocab_size);
      }
    }
  }
  return {};
}

int64_t CountCaches(const Signature& decode) {
  return std::ranges::count_if(decode.inputs, [](const NamedTensor& input) { return input.first.starts_with("kv_cache_k_"); });
}

// X6
Status CheckCaches(const Graph& graph, const Signature& signature, const Signature& decode, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    for (const char* kind : {"k", "v"}) {
      const std::string name = Format("kv_cache_{}_{}", kind, i);
      const Tensor& expected = *TRY(Find(graph, decode, decode.inputs, name));
      if (expected.type != DType::kF32 || expected.shape.size() != 4 || expected.shape[0] != 1) {
        return Fail(ErrorCode::kBundleContract, "{}, \"{}\": f32 of rank 4 with batch 1 expected, found {} {}", Where(decode), name,
                    NameOf(expected.type), ToString(expected.shape));
      }
      TRY(Expect(signature, name, *TRY(Find(graph, signature, signature.inputs, name)), expected.type, expected.shape));
      TRY(Expect(signature, name, *TRY(Find(graph, signature, signature.outputs, name)), expected.type, expected.shape));
    }
  }
  return {};
}

// X4, X5. The signature's tokens are the length of its positions.
Result<int64_t> CheckCall(const Graph& graph, const Signature& signature, const Signature& decode, const TextContract& contract) {
  const auto input = [&](std::string_view name) { return Find(graph, signature, signature.inputs, name); };
  const Tensor& positions = *TRY(input("input_pos"));
  if (positions.type != DType::kI32 || positions.shape.size() != 1) {
    return Fail(ErrorCode::kBundleContract, "{}, \"input_pos\": i32 [tokens] expected, found {} {}", Where(signature),
                NameOf(positions.type), ToString(positions.shape));
  }
  const int64_t tokens = positions.shape[0];
  if (tokens > contract.context) {
    return Fail(ErrorCode::kBundleContract, "{}: {} tokens exceed the context of {}", Where(signature), tokens, contract.context);
  }
  TRY(Expect(signature, "embeddings", *TRY(input("embeddings")), DType::kF32, {1, tokens, contract.hidden_size}));
  if (contract.num_layers > 0) {
    TRY(Expect(signature, "per_layer_embeddings", *TRY(input("per_layer_embeddings")), DType::kF32,
               {1, tokens, contract.num_layers, contract.per_layer_size}));
  }
  TRY(Expect(signature, "mask", *TRY(input("mask")), DType::kF32, {1, 1, tokens, contract.context}));
  TRY(CheckCaches(graph, signature, decode, contract.num_caches));
  const auto known = static_cast<size_t>(3 + (contract.num_layers > 0 ? 1 : 0) + 2 * contract.num_caches);
  if (signature.inputs.size() != known) {
    return Fail(ErrorCode::kBundleContract, "{} has {} inputs, clients fill {}; the others would stay zero", Where(signature),
                signature.inputs.size(), known);
  }
  return tokens;
}

// X7
Status CheckLogits(const Graph& graph, const Signature& signature, const TextContract& contract, int64_t tokens) {
  const Tensor& logits = *TRY(Find(graph, signature, signature.outputs, "logits"));
  return Expect(signature, "logits", logits, DType::kF32, {1, tokens, contract.vocab_size});
}

// X8
Status CheckPrefillLengths(TextContract& contract) {
  std::vector<int64_t>& lengths = contract.prefill_lengths;
  std::ranges::sort(lengths);
  if (lengths.empty()) return Fail(ErrorCode::kBundleContract, "prefill_decode has no prefill signature");
  if (std::ranges::adjacent_find(lengths) != lengths.end()) {
    return Fail(ErrorCode::kBundleContract, "two prefill signatures have the same length; clients use one of them");
  }
  if (lengths.front() > kShortPrefill) {
    return Fail(ErrorCode::kBundleContract, "the shortest prefill has {} tokens; at most {} are needed to reach the end of the context",
                lengths.front(), kShortPrefill);
  }
  return {};
}

// What the members agree on, taken from the decode signature.
Result<TextContract> SizesOf(const Graph& embedder, const Graph* per_layer_embedder, const Graph& graph, const Signature& decode) {
  TextContract contract;
  contract.hidden_size = TRY(CheckEmbedder(embedder, "embedder", 3))[2];
  if (per_layer_embedder != nullptr) {
    const Shape shape = TRY(CheckEmbedder(*per_layer_embedder, "per_layer_embedder", 4));
    contract.num_layers = shape[2];
    contract.per_layer_size = shape[3];
  }
  const Tensor& mask = *TRY(Find(graph, decode, decode.inputs, "mask"));
  if (mask.shape.size() != 4) {
    return Fail(ErrorCode::kBundleContract, "{}, \"mask\": rank 4 expected, found {}", Where(decode), ToString(mask.shape));
  }
  const Tensor& logits = *TRY(Find(graph, decode, decode.outputs, "logits"));
  if (logits.shape.size() != 3) {
    return Fail(ErrorCode::kBundleContract, "{}, \"logits\": rank 3 expected, found {}", Where(decode), ToString(logits.shape));
  }
  contract.context = mask.shape[3];
  contract.vocab_size = logits.shape[2];
  contract.num_caches = CountCaches(decode);
  if (contract.num_caches == 0) return Fail(ErrorCode::kBundleContract, "{} has no \"kv_cache_k_0\"", Where(decode));
  return contract;
}

}  // namespace

Result<TextContract> CheckTextContract(const Graph& embedder, const Graph* per_layer_embedder, const Graph& prefill_decode) {
  const Signature* decode = prefill_decode.FindSignature("decode");
  if (decode == nullptr) return Fail(ErrorCode::kBundleContract, "prefill_decode has no signature \"decode\"");
  TextContract contract = TRY(SizesOf(embedder, per_layer_embedder, prefill_decode, *decode));
  TRY(CheckTables(embedder, "embedder", contract.vocab_size));
  if (per_layer_embedder != nullptr) TRY(CheckTables(*per_layer_embedder, "per_layer_embedder", contract.vocab_size));
  for (const Signature& signature : prefill_decode.signatures) {
    const bool is_prefill = signature.key.starts_with("prefill");
    const bool is_score = signature.key.starts_with("score");
    if (!is_prefill && !is_score && &signature != decode) continue;  // X9
    const int64_t tokens = TRY(CheckCall(prefill_decode, signature, *decode, contract));
    if (!is_prefill) TRY(CheckLogits(prefill_decode, signature, contract, tokens));
    if (is_prefill) contract.prefill_lengths.push_back(tokens);
    if (&signature == decode && tokens != 1) return Fail(ErrorCode::kBundleContract, "decode takes one token, here it takes {}", tokens);
    if (is_score) contract.score_length = std::max(contract.score_length.value_or(0), tokens);
  }
  TRY(CheckPrefillLengths(contract));
  return contract;
}

}  // namespace taskpress
