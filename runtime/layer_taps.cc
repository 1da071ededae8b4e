#include "runtime/layer_taps.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <string_view>

namespace taskpress {
namespace {

constexpr std::string_view kLayers = "layers.";
constexpr std::string_view kMadeByBuilder = "const.";

enum class ConstantKind : uint8_t { kNone, kPlain, kLayer, kOther };

struct ConstantName {
  ConstantKind kind = ConstantKind::kOther;
  int64_t layer = kBeforeLayers;
};

// "model.language_model.layers.7.mlp.up_proj.weight" is of layer 7, "const.1" is a number, "lm_head.weight" a weight outside the layers.
ConstantName ParseName(std::string_view name) {
  if (name.starts_with(kMadeByBuilder)) return {.kind = ConstantKind::kPlain};
  for (size_t at = name.find(kLayers); at != std::string_view::npos; at = name.find(kLayers, at + 1)) {
    if (at > 0 && name[at - 1] != '.') continue;
    const std::string_view rest = name.substr(at + kLayers.size());
    int64_t layer = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
    constexpr int64_t kMostLayers = 1 << 16;
    const bool dot = end != rest.data() + rest.size() && *end == '.';
    if (error == std::errc() && dot && layer >= 0 && layer < kMostLayers) return {.kind = ConstantKind::kLayer, .layer = layer};
  }
  return {};
}

class Finder {
 public:
  Finder(const Subgraph& subgraph, TensorId embeddings)
      : subgraph_(subgraph),
        embeddings_(embeddings),
        rank_(subgraph.tensors.size(), kBeforeLayers),
        root_(subgraph.tensors.size()),
        of_text_(subgraph.tensors.size()) {
    of_text_[static_cast<size_t>(embeddings)] = true;
    for (size_t i = 0; i < root_.size(); ++i) root_[i] = static_cast<TensorId>(i);
    for (const Tensor& tensor : subgraph.tensors) {
      names_.push_back(tensor.is_constant() ? ParseName(tensor.name) : ConstantName{.kind = ConstantKind::kNone});
      last_layer_ = std::max(last_layer_, names_.back().layer);
    }
  }

  Result<std::vector<LayerTap>> Find() {
    if (last_layer_ == kBeforeLayers) return Fail(ErrorCode::kNotComparable, "no weight is called \"layers.<n>.\"");
    RankTensors();
    std::set<std::pair<int64_t, TensorId>> outputs;
    for (const Op& op : subgraph_.ops) {
      const int64_t rank = rank_[static_cast<size_t>(op.outputs.front())];
      for (const TensorId input : op.inputs) {
        if (!IsVariable(input)) continue;
        const TensorId root = root_[static_cast<size_t>(input)];
        if (IsStream(root) && rank_[static_cast<size_t>(root)] < rank) outputs.emplace(rank_[static_cast<size_t>(root)], root);
      }
    }
    return InReadingOrder(outputs);
  }

 private:
  [[nodiscard]] bool IsVariable(TensorId id) const { return id != kNone && names_[static_cast<size_t>(id)].kind == ConstantKind::kNone; }

  // Of the size of the embeddings and made from them: a mask or a cache may have one dimension that happens to be as wide.
  [[nodiscard]] bool IsStream(TensorId id) const {
    const Tensor& tensor = subgraph_.tensors[static_cast<size_t>(id)];
    const Shape& like = subgraph_.tensors[static_cast<size_t>(embeddings_)].shape;
    return of_text_[static_cast<size_t>(id)] && tensor.type == DType::kF32 && !tensor.shape.empty() && tensor.shape.back() == like.back() &&
           NumElements(tensor.shape) == NumElements(like);
  }

  // The last layer whose weights took part in each tensor, and the tensor that it is made of without weights.
  void RankTensors() {
    for (const Op& op : subgraph_.ops) {
      int64_t rank = kBeforeLayers;
      bool weights = false;
      bool other = false;
      bool of_text = false;
      std::set<TensorId> roots;
      for (const TensorId input : op.inputs) {
        if (input == kNone) continue;
        const ConstantName& name = names_[static_cast<size_t>(input)];
        weights |= name.kind == ConstantKind::kLayer || name.kind == ConstantKind::kOther;
        other |= name.kind == ConstantKind::kOther;
        rank = std::max({rank, name.layer, rank_[static_cast<size_t>(input)]});
        of_text = of_text || of_text_[static_cast<size_t>(input)];
        if (IsVariable(input)) roots.insert(root_[static_cast<size_t>(input)]);
      }
      if (other && rank == last_layer_) ++rank;  // the head's
      for (const TensorId output : op.outputs) {
        rank_[static_cast<size_t>(output)] = rank;
        of_text_[static_cast<size_t>(output)] = of_text;
        if (!weights && roots.size() == 1) root_[static_cast<size_t>(output)] = *roots.begin();
      }
    }
  }

  [[nodiscard]] int32_t FirstReader(TensorId id) const {
    for (size_t op = 0; op < subgraph_.ops.size(); ++op) {
      if (std::ranges::contains(subgraph_.ops[op].inputs, id)) return static_cast<int32_t>(op);
    }
    return kNone;
  }

  // Tensors are numbered in the order they are made, and so are the streams.
  [[nodiscard]] std::vector<LayerTap> InReadingOrder(const std::set<std::pair<int64_t, TensorId>>& outputs) const {
    std::vector<LayerTap> taps;
    std::map<int64_t, int64_t> streams;
    for (const auto& [layer, tensor] : outputs) {
      taps.push_back({.layer = layer, .stream = streams[layer]++, .tap = {.tensor = tensor, .reader = FirstReader(tensor)}});
    }
    std::ranges::stable_sort(taps, {}, [](const LayerTap& tap) { return tap.tap.reader; });
    return taps;
  }

  const Subgraph& subgraph_;
  TensorId embeddings_;
  std::vector<ConstantName> names_;  // [tensors]
  std::vector<int64_t> rank_;        // [tensors]
  std::vector<TensorId> root_;       // [tensors]
  std::vector<bool> of_text_;        // [tensors] made from the embeddings
  int64_t last_layer_ = kBeforeLayers;
};

}  // namespace

Result<std::vector<LayerTap>> FindLayerTaps(const Graph& graph) {
  const Signature* decode = graph.FindSignature("decode");
  if (decode == nullptr) return Fail(ErrorCode::kSignatureMissing, "the model has no signature \"decode\"");
  const TensorId embeddings = FindTensor(decode->inputs, "embeddings");
  const Subgraph& subgraph = graph.subgraphs[static_cast<size_t>(decode->subgraph)];
  if (embeddings == kNone || subgraph.tensors[static_cast<size_t>(embeddings)].shape.empty()) {
    return Fail(ErrorCode::kSignatureMissing, "signature decode has no input \"embeddings\"");
  }
  return Finder(subgraph, embeddings).Find();
}

}  // namespace taskpress
