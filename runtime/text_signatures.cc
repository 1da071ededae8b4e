#include "runtime/text_signatures.h"

#include <algorithm>
#include <limits>

namespace taskpress {
namespace {

// Collects one signature; its shapes must agree with what `signatures` already knows from decode.
class Reader {
 public:
  Reader(const Graph& graph, const Signature& signature)
      : subgraph_(graph.subgraphs[static_cast<size_t>(signature.subgraph)]), signature_(signature) {}

  Result<TextSignature> Read(TextSignatures& all, bool is_decode) {
    TextSignature text{.key = signature_.key, .subgraph = signature_.subgraph};
    text.positions = TRY(Find({"input_pos", "positions"}, DType::kI32));
    text.embeddings = TRY(Find({"embeddings"}, DType::kF32));
    text.mask = TRY(Find({"mask", "attn_mask"}, DType::kF32));
    text.per_layer_embeddings = FindTensor(signature_.inputs, "per_layer_embeddings");
    text.logits = FindTensor(signature_.outputs, "logits");
    text.tokens = Elements(text.positions);
    if (is_decode) TRY(TakeSizes(text, all));
    TRY(Expect(text.embeddings, text.tokens * all.hidden_size, "embeddings"));
    TRY(Expect(text.mask, text.tokens * all.context_length, "mask"));
    if (text.per_layer_embeddings != kNone) {
      TRY(Expect(text.per_layer_embeddings, text.tokens * all.per_layer_size, "per_layer_embeddings"));
    }
    TRY(ReadStates(text, all, is_decode));
    return text;
  }

  Status ExpectHidden(TextSignature& text, int64_t hidden_size) const {
    text.hidden = FindTensor(signature_.outputs, "hidden");
    if (text.hidden == kNone) return Fail(ErrorCode::kBundleContract, "signature {}: no output \"hidden\"", signature_.key);
    return Expect(text.hidden, text.tokens * hidden_size, "hidden");
  }

  Status ExpectLogits(const TextSignature& text, int64_t vocab_size) const {
    if (text.logits == kNone) return Fail(ErrorCode::kBundleContract, "signature {}: no output \"logits\"", signature_.key);
    return Expect(text.logits, text.tokens * vocab_size, "logits");
  }

 private:
  const Tensor& TensorAt(TensorId id) const { return subgraph_.tensors[static_cast<size_t>(id)]; }
  int64_t Elements(TensorId id) const { return NumElements(TensorAt(id).shape).value_or(0); }
  int64_t LastDimension(TensorId id) const { return TensorAt(id).shape.empty() ? 0 : TensorAt(id).shape.back(); }

  Result<TensorId> Find(std::initializer_list<std::string_view> spellings, DType type) const {
    for (const std::string_view name : spellings) {
      const TensorId id = FindTensor(signature_.inputs, name);
      if (id == kNone) continue;
      if (TensorAt(id).type == type) return id;
      return Fail(ErrorCode::kBundleContract, "signature {}: input \"{}\" is {}, expected {}", signature_.key, name,
                  NameOf(TensorAt(id).type), NameOf(type));
    }
    return Fail(ErrorCode::kBundleContract, "signature {}: no input \"{}\"", signature_.key, *spellings.begin());
  }

  Status Expect(TensorId id, int64_t elements, std::string_view name) const {
    if (TensorAt(id).type == DType::kF32 && Elements(id) == elements) return {};
    return Fail(ErrorCode::kBundleContract, "signature {}: \"{}\" is {} {}, expected {} f32 values", signature_.key, name,
                NameOf(TensorAt(id).type), ToString(TensorAt(id).shape), elements);
  }

  Status TakeSizes(const TextSignature& text, TextSignatures& all) const {
    if (text.tokens != 1) return Fail(ErrorCode::kBundleContract, "signature {}: takes {} tokens, expected 1", signature_.key, text.tokens);
    if (text.logits == kNone) return Fail(ErrorCode::kBundleContract, "signature {}: no output \"logits\"", signature_.key);
    all.hidden_size = LastDimension(text.embeddings);
    all.context_length = LastDimension(text.mask);
    all.vocab_size = LastDimension(text.logits);
    all.per_layer_size = text.per_layer_embeddings == kNone ? 0 : Elements(text.per_layer_embeddings);
    // Positions and token ids are int32; C * C and T * V must stay far from overflow.
    constexpr int64_t kMaxSize = int64_t{1} << 30;
    if (std::max({all.hidden_size, all.context_length, all.vocab_size, all.per_layer_size}) > kMaxSize) {
      return Fail(ErrorCode::kBundleContract, "signature {}: absurd sizes", signature_.key);
    }
    return {};
  }

  bool IsKnown(TensorId id, const TextSignature& text) const {
    return id == text.positions || id == text.embeddings || id == text.mask || id == text.per_layer_embeddings;
  }

  Status ReadStates(TextSignature& text, TextSignatures& all, bool is_decode) const {
    for (const auto& [name, input] : signature_.inputs) {
      if (IsKnown(input, text)) continue;
      const TensorId output = FindTensor(signature_.outputs, name);
      const Tensor& tensor = TensorAt(input);
      if (output == kNone || TensorAt(output).type != tensor.type || TensorAt(output).shape != tensor.shape) {
        return Fail(ErrorCode::kBundleContract, "signature {}: input \"{}\" {} {} has no output of the same name, type and shape",
                    signature_.key, name, NameOf(tensor.type), ToString(tensor.shape));
      }
      if (is_decode) all.states.push_back({.name = name, .type = tensor.type, .shape = tensor.shape});
      const auto state = std::ranges::find(all.states, name, &StateTensor::name);
      if (state == all.states.end() || state->type != tensor.type || state->shape != tensor.shape) {
        return Fail(ErrorCode::kBundleContract, "signature {}: state \"{}\" {} {} is not one of decode's", signature_.key, name,
                    NameOf(tensor.type), ToString(tensor.shape));
      }
      text.states.push_back({.index = static_cast<size_t>(state - all.states.begin()), .input = input, .output = output});
    }
    return {};
  }

  const Subgraph& subgraph_;
  const Signature& signature_;
};

}  // namespace

Result<TextSignatures> FindTextSignatures(const Graph& graph) {
  const Signature* decode = graph.FindSignature("decode");
  if (decode == nullptr) return Fail(ErrorCode::kSignatureMissing, "the model has no signature \"decode\"");
  TextSignatures all;
  Reader reader(graph, *decode);
  all.decode = TRY(reader.Read(all, /*is_decode=*/true));
  TRY(reader.ExpectLogits(all.decode, all.vocab_size));
  for (const Signature& signature : graph.signatures) {
    Reader other(graph, signature);
    if (signature.key.starts_with("prefill")) all.prefill.push_back(TRY(other.Read(all, /*is_decode=*/false)));
    if (signature.key.starts_with("score")) {
      all.score.push_back(TRY(other.Read(all, /*is_decode=*/false)));
      TRY(other.ExpectLogits(all.score.back(), all.vocab_size));
    }
    if (signature.key.starts_with("calibrate")) {
      all.calibrate.push_back(TRY(other.Read(all, /*is_decode=*/false)));
      TRY(other.ExpectHidden(all.calibrate.back(), all.hidden_size));
    }
  }
  std::ranges::stable_sort(all.prefill, {}, &TextSignature::tokens);
  std::ranges::stable_sort(all.score, {}, &TextSignature::tokens);
  return all;
}

}  // namespace taskpress
