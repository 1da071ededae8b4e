#include "schema/graph_text.h"

#include "schema/base/text.h"

namespace taskpress {
namespace {

struct AttributeText {
  std::string operator()(const NoAttributes& /*none*/) const { return ""; }
  std::string operator()(const FullyConnectedAttributes& a) const { return a.keep_num_dims ? " keep_num_dims" : ""; }
  std::string operator()(const BatchMatMulAttributes& a) const { return Format("{}{}", a.adj_x ? " adj_x" : "", a.adj_y ? " adj_y" : ""); }
  std::string operator()(const SoftmaxAttributes& a) const { return Format(" beta={}", a.beta); }
  std::string operator()(const ConcatenationAttributes& a) const { return Format(" axis={}", a.axis); }
  std::string operator()(const GatherAttributes& a) const { return Format(" axis={} batch_dims={}", a.axis, a.batch_dims); }
  std::string operator()(const CastAttributes& a) const { return Format(" {}->{}", NameOf(a.from), NameOf(a.to)); }
  std::string operator()(const MeanAttributes& a) const { return a.keep_dims ? " keep_dims" : ""; }
  std::string operator()(const GeluAttributes& a) const { return a.approximate ? " approximate" : ""; }
};

std::string TensorText(const Subgraph& subgraph, TensorId id) {
  if (id == kNone) return "none";
  const Tensor& tensor = subgraph.tensors[static_cast<size_t>(id)];
  return Format("%{}:{}{}", id, NameOf(tensor.type), ToString(tensor.shape));
}

std::string NamedText(const Subgraph& subgraph, const std::vector<NamedTensor>& named) {
  std::string text;
  for (const auto& [name, id] : named) text += Format("{}{}={}", text.empty() ? "" : ", ", Printable(name), TensorText(subgraph, id));
  return text;
}

}  // namespace

std::string GraphText(const Graph& graph) {
  std::string text = Format("graph \"{}\": {} buffers, {} quantizations\n", Printable(graph.description), graph.buffers.size(),
                            graph.quantizations.size());
  for (const auto& [name, value] : graph.metadata) text += Format("metadata \"{}\": {} bytes\n", Printable(name), value.size());
  for (const Signature& signature : graph.signatures) {
    const Subgraph& subgraph = graph.subgraphs[static_cast<size_t>(signature.subgraph)];
    text += Format("signature \"{}\" of subgraph {}\n  in  {}\n  out {}\n", Printable(signature.key), signature.subgraph,
                   NamedText(subgraph, signature.inputs), NamedText(subgraph, signature.outputs));
  }
  for (const Subgraph& subgraph : graph.subgraphs) {
    text += Format("subgraph \"{}\"\n", Printable(subgraph.name));
    for (size_t i = 0; i < subgraph.tensors.size(); ++i) {
      const Tensor& tensor = subgraph.tensors[i];
      if (!tensor.is_constant()) continue;
      const int64_t block = BlockSizeOf(subgraph, tensor);
      const std::string scales =
          block == 0 ? Format("quantization={}", tensor.quantization) : Format("blocks of {}, scales=%{}", block, tensor.block_scales);
      text += Format("  const %{} {}{} buffer={} {} \"{}\"\n", i, NameOf(tensor.type), ToString(tensor.shape), tensor.buffer, scales,
                     Printable(tensor.name));
    }
    for (const Op& op : subgraph.ops) {
      std::string inputs;
      for (const TensorId id : op.inputs) inputs += Format("{}{}", inputs.empty() ? "" : ", ", id == kNone ? "none" : Format("%{}", id));
      text += Format("  {} = {}({}){}\n", TensorText(subgraph, op.outputs[0]), NameOf(op.kind), inputs,
                     std::visit(AttributeText(), op.attributes));
    }
  }
  return text;
}

}  // namespace taskpress
