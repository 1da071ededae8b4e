#include "converter/onnx_model.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "converter/checkpoint_folder.h"
#include "converter/onnx_wire.h"
#include "schema/base/checked_math.h"
#include "schema/base/text.h"

// N1 to N9 are the rules of FORMATS.md, section ONNX model.
namespace taskpress {
namespace fs = std::filesystem;
namespace {

using onnx::AttributeProto;
using onnx::GraphProto;
using onnx::NodeProto;
using onnx::TensorProto;

constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxScopesBytes = 16384;
constexpr std::string_view kScopesKey = "pkg.torch.onnx.name_scopes";

// N4
Status CheckName(std::string_view name) {
  const bool clean = std::ranges::none_of(name, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (!name.empty() && name.size() <= kMaxNameBytes && clean) return {};
  return Fail(ErrorCode::kOnnxModel, "tensor \"{}\": a name has 1 to {} bytes without control characters", Printable(name), kMaxNameBytes);
}

// N9: a path of plain names, as writers and readers of all systems understand them.
Status CheckLocation(const std::string& location) {
  const fs::path path(location);
  const bool printable = std::ranges::none_of(location, [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '\\'; });
  const bool plain = printable && path.is_relative() &&
                     std::ranges::none_of(path, [](const fs::path& part) { return part.empty() || part == "." || part == ".."; });
  if (plain) return {};
  return Fail(ErrorCode::kUnsafePath, "external data at \"{}\", which is no path below the model's folder", Printable(location));
}

bool HasSeveralElements(const TensorProto& tensor) {
  return std::ranges::any_of(tensor.dims(), [](int64_t dimension) { return dimension != 1; });
}

}  // namespace

class OnnxModelBuilder {
 public:
  OnnxModelBuilder(fs::path folder, onnx::ModelProto message) : folder_(std::move(folder)), message_(std::move(message)) {}

  Result<OnnxModel> Build() {
    TRY(CheckModel());
    for (TensorProto& tensor : *message_.mutable_graph()->mutable_initializer()) TRY(AddTensor(tensor.name(), tensor));
    for (NodeProto& node : *message_.mutable_graph()->mutable_node()) TRY(AddNode(node));
    for (const onnx::FunctionProto& function : message_.functions()) {
      for (const NodeProto& node : function.node()) AddNested(node, Format("function {}", Printable(function.name())));
    }
    return std::move(model_);
  }

 private:
  // N3
  Status CheckModel() {
    if (!message_.has_graph()) return Fail(ErrorCode::kOnnxModel, "holds no graph; the file is truncated or no ONNX model");
    if (message_.opset_import_size() == 0) {
      return Fail(ErrorCode::kOnnxModel, "imports no operator set; the file is truncated or no ONNX model");
    }
    if (message_.training_info_size() > 0) {
      return Fail(ErrorCode::kOnnxUnsupported, "holds training_info, which may change the weights; export the model for inference");
    }
    if (message_.graph().sparse_initializer_size() > 0) {
      return Fail(ErrorCode::kOnnxUnsupported, "holds {} sparse initializers; export the weights dense",
                  message_.graph().sparse_initializer_size());
    }
    return {};
  }

  Status AddTensor(const std::string& name, TensorProto& tensor) {
    TRY(CheckName(name));
    if (!names_.insert(name).second) return Fail(ErrorCode::kOnnxModel, "two tensors are called \"{}\"", Printable(name));
    Result<OnnxTensor> read = ReadTensor(tensor);
    if (!read) return std::unexpected(WithContext(std::move(read).error(), Format("tensor \"{}\"", Printable(name))));
    read->name = name;
    model_.tensors_.push_back(*std::move(read));
    return {};
  }

  Result<OnnxTensor> ReadTensor(TensorProto& message) {
    OnnxTensor tensor;
    tensor.type = TRY(OnnxElementType(message));
    tensor.type_name = OnnxTypeName(message.data_type());
    tensor.shape = TRY(OnnxShape(message));
    const std::optional<ExternalData> external = TRY(FindExternalData(message));
    if (external) {
      TRY(MapExternal(*external, tensor));
    } else if (tensor.type) {
      model_.inline_bytes_.push_back(TRY(TakeInlineBytes(message, *tensor.type, tensor.shape)));
      tensor.bytes = AsBytes(model_.inline_bytes_.back());
    }
    return tensor;
  }

  // N9
  Status MapExternal(const ExternalData& external, OnnxTensor& tensor) {
    TRY(CheckLocation(external.location));
    std::shared_ptr<const MappedFile>& file = model_.external_files_[external.location];
    if (!file) {
      const CheckpointFile resolved = TRY(ResolveInside(folder_, external.location));
      Result<std::shared_ptr<const MappedFile>> opened = MappedFile::Open(resolved.path);
      if (!opened && opened.error().code == ErrorCode::kFileNotFound) {
        return Fail(ErrorCode::kOnnxModel, "its data file \"{}\" is missing; it belongs beside the model", Printable(external.location));
      }
      file = TRY(std::move(opened));
    }
    const std::optional<uint64_t> needed = tensor.type ? NumBytes(*tensor.type, tensor.shape) : external.length.value_or(0);
    const uint64_t length = external.length.value_or(needed.value_or(0));
    if (needed != length) {
      return Fail(ErrorCode::kOnnxModel, "external length {}, {} {} needs {}; export the model again", length, tensor.type_name,
                  ToString(tensor.shape), needed ? std::to_string(*needed) : "more than 2^64");
    }
    if (!RangeInside(external.offset, length, file->size())) {
      return Fail(ErrorCode::kOnnxModel, "{} bytes at {} end outside \"{}\", which has {}; the file is truncated", length, external.offset,
                  Printable(external.location), file->size());
    }
    if (tensor.type) tensor.bytes = file->bytes().subspan(external.offset, length);
    tensor.file = file.get();
    return {};
  }

  Status AddNode(NodeProto& message) {
    const bool plain_domain = message.domain().empty() || message.domain() == "ai.onnx";
    OnnxNode node{.op = plain_domain ? message.op_type() : Format("{}.{}", message.domain(), message.op_type()),
                  .name = message.name(),
                  .name_scopes = {},
                  .inputs = {message.input().begin(), message.input().end()},
                  .outputs = {message.output().begin(), message.output().end()},
                  .integers = {},
                  .permutation = {}};
    for (const onnx::StringStringEntryProto& entry : message.metadata_props()) {
      if (entry.key() == kScopesKey && entry.value().size() <= kMaxScopesBytes) node.name_scopes = entry.value();
    }
    for (AttributeProto& attribute : *message.mutable_attribute()) {
      if (attribute.has_i()) node.integers[attribute.name()] = attribute.i();
      if (attribute.name() == "perm") node.permutation.assign(attribute.ints().begin(), attribute.ints().end());
      if (node.op == "Constant" && node.outputs.size() == 1) TRY(AddConstant(node.outputs[0], attribute));
      AddNestedGraphs(attribute, Format("node {}", Printable(message.name())));
    }
    model_.nodes_.push_back(std::move(node));
    return {};
  }

  Status AddConstant(const std::string& name, AttributeProto& attribute) {
    if (attribute.has_t()) return AddTensor(name, *attribute.mutable_t());
    if (attribute.floats_size() > 0) {
      TensorProto tensor;
      tensor.set_data_type(TensorProto::FLOAT);
      tensor.add_dims(attribute.floats_size());
      tensor.mutable_float_data()->Add(attribute.floats().begin(), attribute.floats().end());
      return AddTensor(name, tensor);
    }
    if (attribute.has_sparse_tensor()) model_.unreachable_.push_back(Format("\"{}\": a sparse constant", Printable(name)));
    return {};
  }

  // The tensors of subgraphs and functions are named, not read; that their nodes read tensors of the graph is kept. The depth is bounded by
  // protobuf's, since a graph lies in an attribute of a message.
  void AddNestedGraphs(const AttributeProto& attribute, const std::string& where) {
    if (attribute.has_g()) AddNestedGraph(attribute.g(), where);
    for (const GraphProto& graph : attribute.graphs()) AddNestedGraph(graph, where);
  }

  void AddNestedGraph(const GraphProto& graph, const std::string& where) {
    for (const TensorProto& tensor : graph.initializer()) AddUnreachable(tensor.name(), tensor, where);
    if (graph.sparse_initializer_size() > 0) model_.unreachable_.push_back(Format("sparse initializers in {}", where));
    for (const NodeProto& node : graph.node()) AddNested(node, where);
  }

  void AddNested(const NodeProto& node, const std::string& where) {
    OnnxNode reader;
    reader.inputs.assign(node.input().begin(), node.input().end());
    model_.nodes_.push_back(std::move(reader));
    for (const AttributeProto& attribute : node.attribute()) {
      if (attribute.has_t()) AddUnreachable(node.output_size() > 0 ? node.output(0) : "", attribute.t(), where);
      if (attribute.floats_size() > 1 && node.op_type() == "Constant") {
        model_.unreachable_.push_back(Format("{} floats in {}", attribute.floats_size(), where));
      }
      AddNestedGraphs(attribute, where);
    }
  }

  void AddUnreachable(const std::string& name, const TensorProto& tensor, const std::string& where) {
    const bool index =
        tensor.data_type() == TensorProto::INT64 || tensor.data_type() == TensorProto::INT32 || tensor.data_type() == TensorProto::BOOL;
    if (index || !HasSeveralElements(tensor)) return;
    const Shape shape(tensor.dims().begin(), tensor.dims().begin() + std::min(tensor.dims_size(), 8));
    model_.unreachable_.push_back(Format("\"{}\" {} in {}", Printable(name), ToString(shape), where));
  }

  fs::path folder_;
  onnx::ModelProto message_;
  std::set<std::string> names_;
  OnnxModel model_;
};

Result<OnnxModel> OnnxModel::Parse(ByteView bytes, const fs::path& folder) {
  TRY(CheckOnnxWire(bytes));
  onnx::ModelProto message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Fail(ErrorCode::kOnnxModel, "is no ONNX model, or damaged");
  }
  return OnnxModelBuilder(folder, std::move(message)).Build();
}

Result<OnnxModel> OnnxModel::Open(const fs::path& file) {
  const std::shared_ptr<const MappedFile> mapped = TRY(MappedFile::Open(file));
  Result<OnnxModel> model = Parse(mapped->bytes(), file.has_parent_path() ? file.parent_path() : fs::path("."));
  TRY(mapped->CheckUnchanged());
  if (!model) return std::unexpected(WithContext(std::move(model).error(), file.string()));
  return model;
}

std::vector<std::filesystem::path> OnnxModel::external_files() const {
  std::vector<std::filesystem::path> paths;
  for (const auto& [location, file] : external_files_) paths.push_back(file->path());
  return paths;
}

}  // namespace taskpress
