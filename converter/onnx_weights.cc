#include "converter/onnx_weights.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "converter/onnx_names.h"
#include "converter/tensor_rows.h"
#include "schema/base/text.h"

// N10 to N17 are the rules of FORMATS.md, section ONNX model.
namespace taskpress {
namespace {

constexpr std::string_view kBlockOp = "com.microsoft.MatMulNBits";
constexpr std::string_view kWeight = ".weight";

struct Reader {
  const OnnxNode* node;
  size_t input;
  bool transposed;  // a Transpose stands between the tensor and the node
};

// What a node reads, behind operators that leave the values where they are.
struct Value {
  size_t tensor;
  bool transposed;
};

bool IsFloat(const OnnxTensor& tensor) {
  return tensor.type == DType::kF32 || tensor.type == DType::kF16 || tensor.type == DType::kBF16 || tensor.type == DType::kF64;
}

bool IsIndex(const OnnxTensor& tensor) { return tensor.type == DType::kI64 || tensor.type == DType::kI32 || tensor.type == DType::kBool; }

bool IsSimplifiedNorm(const OnnxNode& node) { return node.op.contains("SimplifiedLayerNormalization"); }

int64_t IntegerOr(const OnnxNode& node, const std::string& name, int64_t fallback) {
  const auto found = node.integers.find(name);
  return found == node.integers.end() ? fallback : found->second;
}

// ONNX Runtime's quantizer calls the codes as the matrix it quantized, with the bits behind; empty when they are called otherwise.
std::string BeforeQuantizing(const OnnxBlocks& blocks) {
  const std::string ending = Format("_Q{}", blocks.bits);
  const std::string& name = blocks.codes->name;
  return name.ends_with(ending) ? name.substr(0, name.size() - ending.size()) : "";
}

// N12, N13. The input of a linear layer or of a table that is its weight, and whether the node takes it as [in, out].
struct MatrixUse {
  bool is_weight = false;
  bool in_out = false;
};
MatrixUse UseAsMatrix(const Reader& reader) {
  const OnnxNode& node = *reader.node;
  if (node.op == "MatMul" && reader.input == 1) return {.is_weight = true, .in_out = true};
  if (node.op == "Gemm" && reader.input == 1) return {.is_weight = true, .in_out = IntegerOr(node, "transB", 0) == 0};
  if (node.op == "Gather" && reader.input == 0 && IntegerOr(node, "axis", 0) == 0) return {.is_weight = true, .in_out = false};
  return {};
}

// N14. A vector that the last operator of a norm multiplies by.
bool IsGain(const Reader& reader, std::string_view module) {
  if (!module.ends_with("norm")) return false;
  return reader.node->op == "Mul" || reader.node->op == "RMSNormalization" || IsSimplifiedNorm(*reader.node);
}

// What was found out about one tensor.
struct Claims {
  std::set<std::string> names;
  bool transposed = false;
  std::string trouble;         // why it cannot be mapped, when that is known
  bool maybe_shifted = false;  // N14
};

class OnnxWeightMapper {
 public:
  explicit OnnxWeightMapper(const OnnxModel& model) : model_(model), modules_(model.nodes()), readers_(model.tensors().size()) {}

  Result<std::vector<OnnxWeight>> Map() {
    FindReaders();
    for (const OnnxNode& node : model_.nodes()) {
      if (node.op == kBlockOp) TRY(AddBlocks(node));
    }
    for (size_t i = 0; i < readers_.size(); ++i) AddTensor(i);
    RefuseShiftedGains();
    RemoveWrapper();
    for (const std::string& line : model_.unreachable()) unmapped_.push_back(line);
    RefuseDoubleNames();
    if (!unmapped_.empty()) {  // N16
      return Fail(ErrorCode::kOnnxUnsupported, "{} tensors may be weights and cannot be mapped to parameters of the model:{}",
                  unmapped_.size(), ListLines(unmapped_));
    }
    return std::move(weights_);
  }

 private:
  [[nodiscard]] const OnnxTensor& tensor(size_t index) const { return model_.tensors()[index]; }

  // Nodes are in the order of their computation, as the format demands; a reader met too early finds nothing and its tensor is listed.
  void FindReaders() {
    for (size_t i = 0; i < readers_.size(); ++i) values_[tensor(i).name] = {.tensor = i, .transposed = false};
    for (const OnnxNode& node : model_.nodes()) {
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        const auto value = values_.find(node.inputs[i]);
        if (value != values_.end() && !PassOn(node, i, value->second)) {
          readers_[value->second.tensor].push_back({.node = &node, .input = i, .transposed = value->second.transposed});
        }
      }
    }
  }

  bool PassOn(const OnnxNode& node, size_t input, Value value) {
    const bool same = node.op == "Identity" || node.op == "Cast" || node.op == "CastLike";
    const bool swaps = node.op == "Transpose" && tensor(value.tensor).shape.size() == 2 &&
                       (node.permutation.empty() || node.permutation == std::vector<int64_t>{1, 0});
    if (input != 0 || node.outputs.size() != 1 || !(same || swaps)) return false;
    // Equal initializers are stored once, and an Identity keeps the other's name.
    if (node.op == "Identity" && IsParameterPath(node.outputs[0])) second_names_[value.tensor].push_back(node.outputs[0]);
    values_[node.outputs[0]] = {.tensor = value.tensor, .transposed = value.transposed != swaps};
    return true;
  }

  Status AddBlocks(const OnnxNode& node) {
    const auto find = [this](const std::string& name) -> const OnnxTensor* {
      const auto value = values_.find(name);
      return value == values_.end() || value->second.transposed ? nullptr : &tensor(value->second.tensor);
    };
    const OnnxBlocks blocks = TRY(ReadOnnxBlocks(node, find));
    for (const OnnxTensor* part : {blocks.codes, blocks.scales, blocks.zero_points}) part_of_blocks_.insert(part);
    std::string module = CheckpointPath(modules_.PathOf(node));
    if (module.empty()) {
      const std::string name = BeforeQuantizing(blocks);
      if (IsParameterPath(name) && name.ends_with(kWeight)) module = CheckpointPath(name.substr(0, name.size() - kWeight.size()));
    }
    if (module.empty()) {
      unmapped_.push_back(Describe(*blocks.codes, Format("read by MatMulNBits {}", Printable(node.name))));
      return {};
    }
    weights_.push_back({.name = module + ".weight",
                        .type = blocks.bits == 4 ? DType::kI4 : DType::kU8,
                        .shape = {blocks.rows, blocks.columns},
                        .stored = nullptr,
                        .transposed = false,
                        .blocks = blocks});
    return {};
  }

  void AddTensor(size_t index) {
    const OnnxTensor& stored = tensor(index);
    if (part_of_blocks_.contains(&stored) || IsNoWeight(index)) return;
    Claims claims = Claim(index);
    if (claims.trouble.empty() && claims.names.empty() && !IsOverPositions(index)) claims.trouble = WhoReads(index);
    if (!claims.trouble.empty()) {
      unmapped_.push_back(Describe(stored, claims.trouble));
      return;
    }
    Shape shape = stored.shape;
    if (claims.transposed) std::ranges::reverse(shape);
    for (const std::string& name : claims.names) {
      weights_.push_back(
          {.name = name, .type = *stored.type, .shape = shape, .stored = &stored, .transposed = claims.transposed, .blocks = {}});
      if (claims.maybe_shifted) maybe_shifted_.insert(name);
    }
  }

  // N15: constants of the computation, by their size, their type or their module.
  [[nodiscard]] bool IsNoWeight(size_t index) const {
    const OnnxTensor& stored = tensor(index);
    const bool several = NumElements(stored.shape).value_or(2) > 1;
    if (stored.shape.empty() || (!several && !IsParameterPath(stored.name))) return true;
    const auto dequantizes = [](const Reader& reader) { return reader.node->op.contains("DequantizeLinear"); };
    if (IsIndex(stored)) return std::ranges::none_of(readers_[index], dequantizes);
    if (stored.name.contains("rotary_emb") || stored.name.ends_with("inv_freq")) return true;
    return !readers_[index].empty() && std::ranges::all_of(readers_[index], [this](const Reader& reader) {
      return modules_.PathOf(*reader.node).contains("rotary_emb");
    });
  }

  // N15: tables over positions, such as the cosines of RoPE [1, positions, 1, head_dim] or a mask [1, 1, positions, positions].
  [[nodiscard]] bool IsOverPositions(size_t index) const {
    const Shape& shape = tensor(index).shape;
    const bool table = IsFloat(tensor(index)) && shape.size() >= 3 && shape[0] == 1 &&
                       std::ranges::count_if(shape, [](int64_t dimension) { return dimension > 1; }) >= 2;
    return table && !readers_[index].empty() && std::ranges::none_of(readers_[index], [](const Reader& reader) {
             return reader.node->op.empty() || reader.node->op.contains("MatMul") || reader.node->op.contains("Gemm") ||
                    reader.node->op.contains("Conv");
           });
  }

  Claims Claim(size_t index) {
    const OnnxTensor& stored = tensor(index);
    Claims claims;
    if (!IsFloat(stored)) {
      claims.trouble = Format("of a type that holds no plain weights; {}", WhoReads(index));
      return claims;
    }
    const bool named = IsParameterPath(stored.name);
    bool in_out = false;
    bool out_in = false;
    for (const Reader& reader : readers_[index]) {
      const std::string module = CheckpointPath(modules_.PathOf(*reader.node));
      const MatrixUse use = UseAsMatrix(reader);
      if (use.is_weight && stored.shape.size() == 2) {
        (use.in_out != reader.transposed ? in_out : out_in) = true;
        if (!module.empty()) claims.names.insert(module + ".weight");
      } else if (stored.shape.size() == 1 && IsGain(reader, module)) {
        claims.names.insert(module + ".weight");
        claims.maybe_shifted |= !named || IsSimplifiedNorm(*reader.node);
      }
    }
    if (named) {
      const std::string own = CheckpointPath(stored.name);
      std::erase_if(claims.names, [&](const std::string& name) { return IsShortened(name, own); });
      claims.names.insert(own);
    }
    for (const std::string& name : second_names_[index]) claims.names.insert(CheckpointPath(name));
    // A parameter that is no module's weight is multiplied by as it is.
    const bool of_module = !named || stored.name.ends_with(".weight");
    claims.transposed = in_out && of_module;
    if (in_out && out_in && of_module) claims.trouble = "read as [in, out] and as [out, in]";
    return claims;
  }

  // N14: Gemma 3n multiplies by the weight of a norm, the other Gemmas by one more, which exporters fold into the constant.
  void RefuseShiftedGains() {
    const auto is_gemma3n = [](const OnnxWeight& weight) { return weight.name.contains(".laurel.") || weight.name.contains(".altup."); };
    if (maybe_shifted_.empty() || std::ranges::any_of(weights_, is_gemma3n)) return;
    for (const std::string& name : maybe_shifted_) {
      unmapped_.push_back(Format("\"{}\": a norm's gain, which may be 1 + weight; export without constant folding", Printable(name)));
    }
  }

  void RemoveWrapper() {
    std::vector<std::string> names;
    for (const OnnxWeight& weight : weights_) names.push_back(weight.name);
    std::ranges::sort(names);
    const OnnxRoot root = FindOnnxRoot(names);
    for (OnnxWeight& weight : weights_) weight.name = WithoutWrapper(root, weight.name);
    std::ranges::stable_sort(weights_, {}, &OnnxWeight::name);
  }

  // A layer that is called twice, or whose equal copies are stored once, is one weight; two matrices under one name are not.
  void RefuseDoubleNames() {
    const auto same = [](const OnnxWeight& a, const OnnxWeight& b) {
      return a.name == b.name && a.shape == b.shape && a.stored == b.stored && a.transposed == b.transposed && a.blocks == b.blocks;
    };
    weights_.erase(std::unique(weights_.begin(), weights_.end(), same), weights_.end());
    // ONNX Runtime's quantizer replaces one reader of a matrix and leaves the matrix to the others: the plain one is the weight.
    std::set<std::string> plain;
    for (const OnnxWeight& weight : weights_) {
      if (weight.stored != nullptr) plain.insert(Format("{} {}", weight.name, weight.stored->name));
    }
    std::erase_if(weights_, [&plain](const OnnxWeight& weight) {
      if (!weight.blocks) return false;
      const std::string original = BeforeQuantizing(*weight.blocks);
      return !original.empty() && plain.contains(Format("{} {}", weight.name, original));
    });
    // The dynamo exporter folds the Transpose in front of a tied head when the table is small, and keeps the table for the embedding.
    const auto equal = [](const OnnxWeight& a, const OnnxWeight& b) { return a.name == b.name && HoldsTheSame(a, b); };
    weights_.erase(std::unique(weights_.begin(), weights_.end(), equal), weights_.end());
    for (size_t i = 1; i < weights_.size(); ++i) {
      if (weights_[i].name == weights_[i - 1].name) {
        unmapped_.push_back(
            Format("\"{}\": two tensors, {} and {}", Printable(weights_[i].name), StoredName(weights_[i - 1]), StoredName(weights_[i])));
      }
    }
  }

  static bool HoldsTheSame(const OnnxWeight& a, const OnnxWeight& b) {
    if (a.shape != b.shape || a.type != b.type) return false;
    constexpr int64_t kFloats = 1 << 18;
    const int64_t rows = MatrixRows(a.shape);
    const int64_t columns = MatrixColumns(a.shape);
    const int64_t rows_at_once = std::max<int64_t>(1, kFloats / std::max<int64_t>(columns, 1));
    std::vector<float> left(kFloats);
    std::vector<float> right(kFloats);
    for (int64_t row = 0; row < rows; row += rows_at_once) {
      for (int64_t column = 0; column < columns; column += kFloats) {
        const RowBlock block{.first_row = row,
                             .num_rows = std::min(rows_at_once, rows - row),
                             .first_column = column,
                             .num_columns = std::min(kFloats, columns - column)};
        const auto count = static_cast<size_t>(block.num_rows * block.num_columns);
        ReadOnnxWeight(a, block, std::span(left).first(count));
        ReadOnnxWeight(b, block, std::span(right).first(count));
        if (std::memcmp(left.data(), right.data(), count * sizeof(float)) != 0) return false;
      }
    }
    return true;
  }

  static std::string StoredName(const OnnxWeight& weight) {
    return Printable(weight.stored != nullptr ? weight.stored->name : weight.blocks->codes->name);
  }

  [[nodiscard]] std::string WhoReads(size_t index) const {
    if (readers_[index].empty()) return "read by no node";
    const Reader& reader = readers_[index].front();
    return Format("input {} of {} {}", reader.input, reader.node->op.empty() ? "a subgraph" : Printable(reader.node->op),
                  Printable(reader.node->name));
  }

  static std::string Describe(const OnnxTensor& stored, std::string_view why) {
    return Format("\"{}\" {} {}: {}", Printable(stored.name), stored.type_name, ToString(stored.shape), why);
  }

  const OnnxModel& model_;
  OnnxModules modules_;
  std::vector<std::vector<Reader>> readers_;  // [tensors]
  std::map<std::string, Value> values_;       // by the name that nodes read
  std::map<size_t, std::vector<std::string>> second_names_;
  std::set<const OnnxTensor*> part_of_blocks_;
  std::set<std::string> maybe_shifted_;
  std::vector<OnnxWeight> weights_;
  std::vector<std::string> unmapped_;
};

}  // namespace

void ReadOnnxWeight(const OnnxWeight& weight, const RowBlock& block, std::span<float> out) {
  if (weight.blocks) return ReadOnnxBlocksRows(*weight.blocks, block, out);
  const auto read = weight.transposed ? ReadTransposedBlock : ReadBlock;
  read(weight.type, weight.stored->bytes, MatrixColumns(weight.stored->shape), block, out);
}

Result<std::vector<OnnxWeight>> MapOnnxWeights(const OnnxModel& model) { return OnnxWeightMapper(model).Map(); }

}  // namespace taskpress
