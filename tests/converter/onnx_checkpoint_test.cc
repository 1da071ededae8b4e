#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "converter/checkpoint.h"
#include "converter/onnx_names.h"
#include "schema/base/error.h"
#include "schema/base/half.h"
#include "tests/testing/raw_files.h"
#include "tests/testing/raw_onnx.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;
using onnx::ModelProto;
using onnx::TensorProto;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kLayer = "/model/layers.0/";

std::vector<float> Count(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return values;
}

std::vector<float> Read(const Checkpoint& checkpoint, const CheckpointTensor& tensor) {
  const RowBlock all{.first_row = 0, .num_rows = MatrixRows(tensor.shape), .first_column = 0, .num_columns = MatrixColumns(tensor.shape)};
  std::vector<float> values(static_cast<size_t>(all.num_rows * all.num_columns));
  const Status read = checkpoint.ReadRows(tensor, all, values);
  EXPECT_TRUE(read.has_value()) << read.error().message;
  return values;
}

std::vector<float> Read(const Checkpoint& checkpoint, std::string_view name) {
  const CheckpointTensor* tensor = checkpoint.Find(name);
  if (tensor == nullptr) {
    ADD_FAILURE() << "no tensor " << name;
    return {};
  }
  return Read(checkpoint, *tensor);
}

std::vector<std::string> Names(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) names.push_back(tensor.name);
  return names;
}

class OnnxCheckpointTest : public testing::Test {
 protected:
  [[nodiscard]] Result<std::unique_ptr<Checkpoint>> Try(const ModelProto& model) const {
    return OpenOnnxCheckpoint(folder_.Write("model.onnx", model.SerializeAsString()));
  }
  [[nodiscard]] std::unique_ptr<Checkpoint> Open(const ModelProto& model) const {
    Result<std::unique_ptr<Checkpoint>> checkpoint = Try(model);
    EXPECT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
    return checkpoint ? *std::move(checkpoint) : nullptr;
  }
  void ExpectListed(const ModelProto& model, std::string_view line, ErrorCode code = ErrorCode::kOnnxUnsupported) const {
    const Result<std::unique_ptr<Checkpoint>> checkpoint = Try(model);
    ASSERT_FALSE(checkpoint.has_value()) << line;
    EXPECT_EQ(InfoOf(checkpoint.error().code).name, InfoOf(code).name) << checkpoint.error().message;
    EXPECT_THAT(checkpoint.error().message, HasSubstr(line));
  }
  // A linear layer of the first layer, [out 2, in 3], stored [in, out] under `stored`.
  static ModelProto Linear(std::string_view stored, std::string_view module) {
    ModelProto model = EmptyOnnx();
    AddInitializer(model, OnnxFloats(std::string(stored), {3, 2}, Count(6)));
    AddOnnxNode(model, "MatMul", Format("{}{}/MatMul", kLayer, module), {"x", std::string(stored)});
    return model;
  }
  TempFolder folder_;
};

TEST_F(OnnxCheckpointTest, TurnsAMatrixThatMatMulReads) {
  const std::unique_ptr<Checkpoint> checkpoint = Open(Linear("onnx::MatMul_12", "mlp/up_proj"));
  ASSERT_THAT(Names(*checkpoint), ElementsAre("model.layers.0.mlp.up_proj.weight"));
  EXPECT_THAT(checkpoint->tensors()[0].shape, ElementsAre(2, 3));
  EXPECT_THAT(Read(*checkpoint, checkpoint->tensors()[0]), ElementsAre(0, 2, 4, 1, 3, 5));
  EXPECT_EQ(checkpoint->description(), (folder_.path() / "model.onnx").string());
}

TEST_F(OnnxCheckpointTest, KnowsTheOrientationByTheReaderWhateverTheName) {
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  EXPECT_THAT(Read(*Open(Linear(name, "mlp/up_proj")), name), ElementsAre(0, 2, 4, 1, 3, 5));
  struct Case {
    std::string_view reader;
    std::vector<int64_t> dims;
    bool turned;
  };
  for (const Case& c :
       {Case{"Transpose", {2, 3}, false}, Case{"Gemm transB", {2, 3}, false}, Case{"Gemm", {3, 2}, true}, Case{"Gather", {2, 3}, false}}) {
    SCOPED_TRACE(c.reader);
    ModelProto model = EmptyOnnx();
    AddInitializer(model, OnnxFloats(name, c.dims, Count(6)));
    std::string matrix = name;
    if (c.reader == "Transpose") {
      AddOnnxNode(model, "Transpose", "/model/layers.0/mlp/up_proj/Transpose", {matrix});
      matrix = "/model/layers.0/mlp/up_proj/Transpose_out";
    }
    const bool gather = c.reader == "Gather";
    const std::string_view op = gather ? "Gather" : c.reader.starts_with("Gemm") ? "Gemm" : "MatMul";
    onnx::NodeProto& node = AddOnnxNode(model, op, "/model/layers.0/mlp/up_proj/op",
                                        gather ? std::vector<std::string>{matrix, "x"} : std::vector<std::string>{"x", matrix});
    if (c.reader == "Gemm transB") SetOnnxInteger(node, "transB", 1);
    const std::unique_ptr<Checkpoint> checkpoint = Open(model);
    ASSERT_NE(checkpoint, nullptr);
    ASSERT_THAT(Names(*checkpoint), ElementsAre(name));
    EXPECT_THAT(checkpoint->tensors()[0].shape, ElementsAre(2, 3));
    EXPECT_THAT(Read(*checkpoint, name), c.turned ? ElementsAre(0, 2, 4, 1, 3, 5) : ElementsAre(0, 1, 2, 3, 4, 5));
  }
}

TEST_F(OnnxCheckpointTest, FindsTheModuleInNodeNamesAndInMetadata) {
  ModelProto model = Linear("val_3", "anything");
  model.mutable_graph()->mutable_node(0)->set_name("node_linear_7");
  SetOnnxScopes(*model.mutable_graph()->mutable_node(0), "model.layers.0.laurel.linear_left");
  EXPECT_THAT(Names(*Open(model)), ElementsAre("model.layers.0.laurel.linear_left.weight"));
  EXPECT_THAT(Names(*Open(Linear("onnx::MatMul_1", "prediction_coefs"))), ElementsAre("model.layers.0.altup.prediction_coefs.weight"));
  EXPECT_THAT(Names(*Open(Linear("model.layers.0.attn.q_proj.MatMul.weight", "attn/q_proj"))),
              ElementsAre("model.layers.0.self_attn.q_proj.weight"));
  ModelProto twice = Linear("onnx::MatMul_1", "modality_router");
  AddOnnxNode(twice, "Identity", "Identity_1", {"onnx::MatMul_1"});
  AddOnnxNode(twice, "MatMul", "/model/layers.0/modality_router_1/MatMul", {"x", "Identity_1_out"});
  EXPECT_THAT(Names(*Open(twice)), ElementsAre("model.layers.0.altup.modality_router.weight"));
  // A module whose own name ends in a number has no namesake without one.
  EXPECT_THAT(Names(*Open(Linear("onnx::MatMul_1", "conv_1"))), ElementsAre("model.layers.0.conv_1.weight"));
}

TEST_F(OnnxCheckpointTest, ShowsASharedTensorUnderEveryName) {
  ModelProto model = EmptyOnnx();  // as the dynamo exporter stores a tied table
  AddInitializer(model, OnnxFloats("lm_head.weight", {2, 3}, Count(6)));
  SetOnnxScopes(AddOnnxNode(model, "Gather", "node_embedding", {"lm_head.weight", "ids"}), "model.embed_tokens");
  SetOnnxScopes(AddOnnxNode(model, "Transpose", "node_t", {"lm_head.weight"}), "lm_head");
  SetOnnxScopes(AddOnnxNode(model, "MatMul", "node_linear", {"x", "node_t_out"}), "lm_head");
  // As the TorchScript exporter stores equal parameters.
  AddInitializer(model, OnnxFloats("model.layers.0.altup.correct_output_scale", {3}, Count(3)));
  AddOnnxNode(model, "Identity", "Identity_1", {"model.layers.0.altup.correct_output_scale"})
      .set_output(0, "model.layers.1.altup.correct_output_scale");
  const std::unique_ptr<Checkpoint> checkpoint = Open(model);
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_THAT(Names(*checkpoint), ElementsAre("lm_head.weight", "model.embed_tokens.weight", "model.layers.0.altup.correct_output_scale",
                                              "model.layers.1.altup.correct_output_scale"));
  EXPECT_EQ(Read(*checkpoint, "lm_head.weight"), Read(*checkpoint, "model.embed_tokens.weight"));
}

TEST_F(OnnxCheckpointTest, BelievesATensorsNameBeforeAReaderThatLostAScope) {
  ModelProto model = EmptyOnnx();  // the whole model takes the table of its text model by get_input_embeddings()
  AddInitializer(model, OnnxFloats("model.language_model.embed_tokens.weight", {2, 3}, Count(6)));
  AddOnnxNode(model, "Gather", "/model/embed_tokens/Gather", {"model.language_model.embed_tokens.weight", "ids"});
  EXPECT_THAT(Names(*Open(model)), ElementsAre("model.language_model.embed_tokens.weight"));
}

TEST_F(OnnxCheckpointTest, LooksPastTheWrapperOfAnExport) {
  struct Case {
    std::string_view stored;
    std::string_view shown;
  };
  for (const Case& c : {Case{"wrapped.model.", "model."}, Case{"model.model.", "model."}, Case{"", "model."},
                        Case{"model.language_model.", "model.language_model."}, Case{"m.model.language_model.", "model.language_model."},
                        Case{"language_model.model.", "language_model.model."}, Case{"decoder.", "model."}}) {
    SCOPED_TRACE(c.stored);
    ModelProto model = EmptyOnnx();
    AddInitializer(model, OnnxFloats(Format("{}embed_tokens.weight", c.stored), {2, 3}, Count(6)));
    AddInitializer(model, OnnxFloats(Format("{}norm.weight", c.stored), {3}, Count(3)));
    const std::unique_ptr<Checkpoint> checkpoint = Open(model);
    ASSERT_NE(checkpoint, nullptr);
    EXPECT_THAT(Names(*checkpoint), ElementsAre(Format("{}embed_tokens.weight", c.shown), Format("{}norm.weight", c.shown)));
  }
}

TEST_F(OnnxCheckpointTest, TakesAGainForTheWeightOnlyInGemma3n) {
  ModelProto model = EmptyOnnx();
  AddInitializer(model, OnnxFloats("onnx::Mul_5", {3}, Count(3)));
  AddOnnxNode(model, "Mul", "/model/layers.0/input_layernorm/Mul_1", {"x", "onnx::Mul_5"});
  ExpectListed(model, "\"model.layers.0.input_layernorm.weight\": a norm's gain, which may be 1 + weight");
  AddInitializer(model, OnnxFloats("onnx::MatMul_6", {3, 2}, Count(6)));
  AddOnnxNode(model, "MatMul", "/model/layers.0/laurel/linear_left/MatMul", {"x", "onnx::MatMul_6"});
  EXPECT_THAT(Names(*Open(model)), ElementsAre("model.layers.0.input_layernorm.weight", "model.layers.0.laurel.linear_left.weight"));
  ModelProto fused = EmptyOnnx();  // by a model builder that may have added the one
  AddInitializer(fused, OnnxFloats("model.norm.weight", {3}, Count(3)));
  AddOnnxNode(fused, "SimplifiedLayerNormalization", "/model/norm/LayerNorm", {"x", "model.norm.weight"});
  ExpectListed(fused, "\"model.norm.weight\": a norm's gain");
  fused.mutable_graph()->mutable_node(0)->set_op_type("Mul");
  EXPECT_THAT(Names(*Open(fused)), ElementsAre("model.norm.weight"));
}

TEST_F(OnnxCheckpointTest, LeavesOutConstantsOfTheComputation) {
  ModelProto model = Linear("onnx::MatMul_12", "mlp/up_proj");
  AddInitializer(model, OnnxFloats("model.embed_tokens.embed_scale", {}, Count(1)));
  AddInitializer(model, OnnxFloats("val_1", {1, 1}, Count(1)));
  AddInitializer(model, OnnxFloats("val_2", {0, 4}, {}));
  AddInitializer(model, RawOnnxTensor("position_ids", TensorProto::INT64, {1, 4}, std::string(32, '\0')));
  AddInitializer(model, RawOnnxTensor("mask", TensorProto::BOOL, {4, 4}, std::string(16, '\0')));
  AddInitializer(model, OnnxFloats("model.rotary_emb.inv_freq", {16}, Count(16)));
  AddInitializer(model, OnnxFloats("val_3", {1, 16, 1}, Count(16)));
  AddOnnxNode(model, "MatMul", "/model/rotary_emb/MatMul", {"val_3", "positions"});
  AddInitializer(model, OnnxFloats("cosines", {1, 4, 1, 4}, Count(16)));
  AddOnnxNode(model, "Mul", "/model/layers.0/self_attn/Mul", {"x", "cosines"});
  EXPECT_THAT(Names(*Open(model)), ElementsAre("model.layers.0.mlp.up_proj.weight"));
}

TEST_F(OnnxCheckpointTest, ListsEverythingThatMayBeAWeight) {
  struct Case {
    std::string_view line;
    TensorProto tensor;
    std::string_view op;
    std::string_view node;
    size_t input;
  };
  const std::vector<Case> cases = {
      {"\"val_9\" FLOAT [2,3]: read by no node", OnnxFloats("val_9", {2, 3}, Count(6)), "", "", 0},
      {"\"val_9\" FLOAT [6]: input 1 of Add /model/layers.0/mlp/up_proj/Add", OnnxFloats("val_9", {6}, Count(6)), "Add",
       "/model/layers.0/mlp/up_proj/Add", 1},
      {"\"val_9\" FLOAT [6]: input 1 of Mul /model/layers.0/Mul_3", OnnxFloats("val_9", {6}, Count(6)), "Mul", "/model/layers.0/Mul_3", 1},
      {"\"val_9\" FLOAT [3,2]: input 1 of MatMul node_linear_3_Q4", OnnxFloats("val_9", {3, 2}, Count(6)), "MatMul", "node_linear_3_Q4", 1},
      {"\"val_9\" FLOAT [3,2]: input 0 of MatMul /model/x/MatMul", OnnxFloats("val_9", {3, 2}, Count(6)), "MatMul", "/model/x/MatMul", 0},
      {"\"val_9\" FLOAT [1,3,2]: input 1 of MatMul /model/x/MatMul", OnnxFloats("val_9", {1, 3, 2}, Count(6)), "MatMul", "/model/x/MatMul",
       1},
      {"\"val_9\" FLOAT [2,3,1]: input 1 of Mul /model/x/Mul", OnnxFloats("val_9", {2, 3, 1}, Count(6)), "Mul", "/model/x/Mul", 1},
      {"\"val_9\" FLOAT [1,1,6]: input 1 of Add /model/x/Add", OnnxFloats("val_9", {1, 1, 6}, Count(6)), "Add", "/model/x/Add", 1},
      {"\"model.layers.0.mlp.up_proj.weight_quantized\" INT8 [6]: of a type that holds no plain weights; input 0 of DequantizeLinear q",
       RawOnnxTensor("model.layers.0.mlp.up_proj.weight_quantized", TensorProto::INT8, {6}, "abcdef"), "DequantizeLinear", "q", 0},
      {"\"val_9\" INT32 [2]: of a type that holds no plain weights; input 0 of DequantizeLinear q",
       RawOnnxTensor("val_9", TensorProto::INT32, {2}, "abcdefgh"), "DequantizeLinear", "q", 0},
      {"\"val_9\" FLOAT8E4M3FN [6]: of a type that holds no plain weights",
       RawOnnxTensor("val_9", TensorProto::FLOAT8E4M3FN, {6}, "abcdef"), "MatMul", "/model/x/MatMul", 1},
      {"\"val_9\" UINT8 [2,3]: of a type that holds no plain weights; input 0 of com.microsoft.GatherBlockQuantized",
       RawOnnxTensor("val_9", TensorProto::UINT8, {2, 3}, "abcdef"), "com.microsoft.GatherBlockQuantized", "/model/embed_tokens/Gather", 0},
  };
  for (const Case& c : cases) {
    ModelProto model = Linear("onnx::MatMul_12", "mlp/gate_proj");
    AddInitializer(model, c.tensor);
    if (!c.op.empty()) {
      std::vector<std::string> inputs(2, "x");
      inputs[c.input] = c.tensor.name();
      AddOnnxNode(model, c.op, c.node, inputs);
    }
    ExpectListed(model, c.line);
  }
}

TEST_F(OnnxCheckpointTest, ListsContradictions) {
  ModelProto both = Linear("onnx::MatMul_12", "mlp/up_proj");
  AddOnnxNode(both, "Gather", "/model/layers.0/mlp/up_proj/Gather", {"onnx::MatMul_12", "ids"});
  ExpectListed(both, "\"onnx::MatMul_12\" FLOAT [3,2]: read as [in, out] and as [out, in]");
  ModelProto two = Linear("onnx::MatMul_12", "mlp/up_proj");
  AddInitializer(two, OnnxFloats("onnx::MatMul_13", {3, 2}, Count(6)));
  AddOnnxNode(two, "MatMul", "/model/layers.0/mlp/up_proj/MatMul_1", {"x", "onnx::MatMul_13"});
  EXPECT_EQ(Open(two)->tensors().size(), 1U);  // of equal values
  two.mutable_graph()->mutable_initializer(1)->mutable_raw_data()->back() ^= '\x01';
  ExpectListed(two, "\"model.layers.0.mlp.up_proj.weight\": two tensors, onnx::MatMul_12 and onnx::MatMul_13");
  ModelProto nested = Linear("onnx::MatMul_12", "mlp/up_proj");
  onnx::NodeProto& branch = AddOnnxNode(nested, "If", "branch", {"condition"});
  *branch.add_attribute()->mutable_g()->add_initializer() = OnnxFloats("hidden", {2, 2}, Count(4));
  ExpectListed(nested, "\"hidden\" [2,2] in node branch");
  ModelProto used_inside = EmptyOnnx();
  AddInitializer(used_inside, OnnxFloats("val_9", {1, 3, 2}, Count(6)));
  onnx::NodeProto& loop = AddOnnxNode(used_inside, "Loop", "loop", {"n"});
  loop.add_attribute()->mutable_g()->add_node()->add_input("val_9");
  ExpectListed(used_inside, "\"val_9\" FLOAT [1,3,2]: input 0 of a subgraph");
}

// A matrix [3, 40] in blocks of 16: the last of each row is cut.
struct BlockModel {
  ModelProto model;
  std::vector<float> values;
};
BlockModel InBlocks(int bits) {
  std::vector<float> values = Count(120);
  for (float& value : values) value = std::sin(value * 7) - 0.3F;
  QuantizedOnnx quantized = QuantizeOnnx("onnx::MatMul_12_Q4", values, 3, 40, bits, 16);
  BlockModel out{.model = EmptyOnnx(), .values = quantized.values};
  onnx::NodeProto& node = AddOnnxNode(out.model, "MatMulNBits", "/model/layers.0/mlp/up_proj/MatMul_Q4",
                                      {"x", quantized.codes.name(), quantized.scales.name(), quantized.zero_points.name()});
  node.set_domain("com.microsoft");
  for (const auto& [name, value] : {std::pair{"N", 3}, {"K", 40}, {"bits", bits}, {"block_size", 16}}) SetOnnxInteger(node, name, value);
  AddInitializer(out.model, quantized.codes);
  AddInitializer(out.model, quantized.scales);
  AddInitializer(out.model, quantized.zero_points);
  return out;
}

TEST_F(OnnxCheckpointTest, DequantizesBlocksOfFourAndEightBits) {
  for (const int bits : {4, 8}) {
    const BlockModel honest = InBlocks(bits);
    const std::unique_ptr<Checkpoint> checkpoint = Open(honest.model);
    ASSERT_NE(checkpoint, nullptr);
    ASSERT_THAT(Names(*checkpoint), ElementsAre("model.layers.0.mlp.up_proj.weight"));
    const CheckpointTensor& tensor = checkpoint->tensors()[0];
    EXPECT_THAT(tensor.shape, ElementsAre(3, 40));
    EXPECT_EQ(Read(*checkpoint, tensor), honest.values);
    for (int64_t first = 0; first < 40; first += 7) {  // across the borders of blocks and of bytes
      std::vector<float> part(2 * 5);
      const int64_t column = std::min<int64_t>(first, 35);
      ASSERT_TRUE(checkpoint->ReadRows(tensor, {1, 2, column, 5}, part).has_value());
      for (size_t i = 0; i < part.size(); ++i) {
        EXPECT_EQ(part[i], honest.values[(1 + i / 5) * 40 + static_cast<size_t>(column) + i % 5]) << first << " " << i;
      }
    }
  }
}

TEST_F(OnnxCheckpointTest, DequantizesWithoutZeroPointsAndWithFloatOnes) {
  BlockModel honest = InBlocks(4);
  auto& tensors = *honest.model.mutable_graph()->mutable_initializer();
  auto& node = *honest.model.mutable_graph()->mutable_node(0);
  const std::string codes = tensors[0].raw_data();
  std::vector<float> scales(9);
  std::memcpy(scales.data(), tensors[1].raw_data().data(), 36);
  const auto expected = [&](size_t at, float zero) {
    const size_t row = at / 40;
    const size_t column = at % 40;
    const auto pair = static_cast<unsigned char>(codes[row * 24 + column / 2]);
    return (static_cast<float>(column % 2 == 0 ? pair & 0xf : pair >> 4) - zero) * scales[row * 3 + column / 16];
  };
  tensors[2] = OnnxFloats(tensors[2].name(), {9}, std::vector<float>(9, 2.5F));
  std::vector<float> values = Read(*Open(honest.model), "model.layers.0.mlp.up_proj.weight");
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], expected(i, 2.5F)) << i;
  tensors.RemoveLast();
  node.mutable_input()->RemoveLast();
  values = Read(*Open(honest.model), "model.layers.0.mlp.up_proj.weight");
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], expected(i, 8.0F)) << i;
  // Without a path in the node's name, the name of the codes tells.
  node.set_name("node_linear_3_Q4");
  ExpectListed(honest.model, "\"onnx::MatMul_12_Q4\" UINT8 [3,3,8]: read by MatMulNBits node_linear_3_Q4");
  tensors[0].set_name("model.layers.0.attn.q_proj.MatMul.weight_Q4");
  node.set_input(1, tensors[0].name());
  EXPECT_THAT(Names(*Open(honest.model)), ElementsAre("model.layers.0.self_attn.q_proj.weight"));
}

TEST_F(OnnxCheckpointTest, PrefersTheOriginalThatAQuantizerLeftInTheFile) {
  BlockModel model = InBlocks(4);
  const std::vector<float> original = Count(120);
  AddInitializer(model.model, OnnxFloats("onnx::MatMul_12", {40, 3}, original));
  AddOnnxNode(model.model, "MatMul", "/model/layers.0/mlp/up_proj_1/MatMul", {"x", "onnx::MatMul_12"});
  const std::unique_ptr<Checkpoint> checkpoint = Open(model.model);
  ASSERT_NE(checkpoint, nullptr);
  ASSERT_THAT(Names(*checkpoint), ElementsAre("model.layers.0.mlp.up_proj.weight"));
  EXPECT_EQ(Read(*checkpoint, "model.layers.0.mlp.up_proj.weight")[1], original[3]);
  model.model.mutable_graph()->mutable_initializer(3)->set_name("onnx::MatMul_13");
  model.model.mutable_graph()->mutable_node(1)->set_input(1, "onnx::MatMul_13");
  ExpectListed(model.model, "\"model.layers.0.mlp.up_proj.weight\": two tensors, ");
}

TEST_F(OnnxCheckpointTest, RefusesEveryLieAboutBlocks) {
  using enum ErrorCode;
  using Attributes = onnx::NodeProto;
  struct Lie {
    std::string_view message;
    std::function<void(ModelProto&, Attributes&)> tell;
    ErrorCode code = kOnnxModel;
  };
  const auto set = [](int index, int64_t value) {
    return [=](ModelProto&, Attributes& node) { node.mutable_attribute(index)->set_i(value); };
  };
  const auto tensor = [](ModelProto& model, int index) -> TensorProto& { return *model.mutable_graph()->mutable_initializer(index); };
  const std::vector<Lie> lies = {
      {"the attribute N is missing", [](ModelProto&, Attributes& node) { node.mutable_attribute(0)->set_name("M"); }},
      {"the attribute N is 0", set(0, 0)},
      {"the attribute K is -40", set(1, -40)},
      {"the attribute K is 4611686018427387904", set(1, 1LL << 62)},
      {"codes UINT8 [3,3,8] do not fit u8 [2147483647,134217728,8]",
       [](ModelProto&, Attributes& node) {
         node.mutable_attribute(0)->set_i(2147483647);
         node.mutable_attribute(1)->set_i(2147483647);
       }},
      {"2 bits; 4 and 8 are read", set(2, 2), kOnnxUnsupported},
      {"the attribute block_size is 8", set(3, 8)},
      {"block_size 24 is no power of two", set(3, 24)},
      {"do not fit u8 [3,2,16]", set(3, 32)},
      {"do not fit u8 [4,3,8]", set(0, 4)},
      {"reordered columns", [](ModelProto&, Attributes& node) { node.add_input("g_idx"); }, kOnnxUnsupported},
      {"are computed, not stored", [](ModelProto&, Attributes& node) { node.set_input(2, "x"); }, kOnnxUnsupported},
      {"are computed, not stored", [](ModelProto&, Attributes& node) { node.set_input(3, "x"); }, kOnnxUnsupported},
      {"codes INT8 [3,3,8] do not fit", [&](ModelProto& m, Attributes&) { tensor(m, 0).set_data_type(TensorProto::INT8); }},
      {"scales INT32 [9] are not 9 floats", [&](ModelProto& m, Attributes&) { tensor(m, 1).set_data_type(TensorProto::INT32); }},
      {"scales FLOAT [8] are not 9 floats",
       [&](ModelProto& m, Attributes&) { tensor(m, 1) = OnnxFloats(tensor(m, 1).name(), {8}, std::vector<float>(8)); }},
      {"zero points UINT8 [5] are neither u8 [3,2]",
       [&](ModelProto& m, Attributes&) { tensor(m, 2) = RawOnnxTensor(tensor(m, 2).name(), TensorProto::UINT8, {5}, "abcde"); }},
      {"zero points FLOAT16 [9] are neither",
       [&](ModelProto& m, Attributes&) {
         tensor(m, 2) = RawOnnxTensor(tensor(m, 2).name(), TensorProto::FLOAT16, {9}, std::string(18, '\0'));
       }},
  };
  for (const Lie& lie : lies) {
    SCOPED_TRACE(lie.message);
    BlockModel model = InBlocks(4);
    lie.tell(model.model, *model.model.mutable_graph()->mutable_node(0));
    ExpectListed(model.model, lie.message, lie.code);
  }
}

TEST_F(OnnxCheckpointTest, ReadsBlocksOfATurnedMatrixOfEveryType) {
  // Larger than a tile both ways, and no multiple of one.
  constexpr int64_t kRows = 150;
  constexpr int64_t kColumns = 133;
  std::vector<float> stored = Count(kRows * kColumns);
  for (float& value : stored) value = F16ToFloat(FloatToF16(std::sin(value)));
  std::vector<uint16_t> halves;
  for (const float value : stored) halves.push_back(FloatToF16(value));
  const std::vector<double> doubles(stored.begin(), stored.end());
  for (const int type : {TensorProto::FLOAT, TensorProto::FLOAT16, TensorProto::DOUBLE}) {
    ModelProto model = EmptyOnnx();
    const std::string bytes = type == TensorProto::FLOAT     ? RawBytes(std::span<const float>(stored))
                              : type == TensorProto::FLOAT16 ? RawBytes(std::span<const uint16_t>(halves))
                                                             : RawBytes(std::span<const double>(doubles));
    AddInitializer(model, RawOnnxTensor("onnx::MatMul_1", type, {kColumns, kRows}, bytes));
    AddOnnxNode(model, "MatMul", "/model/layers.0/mlp/up_proj/MatMul", {"x", "onnx::MatMul_1"});
    const std::unique_ptr<Checkpoint> checkpoint = Open(model);
    ASSERT_NE(checkpoint, nullptr);
    const CheckpointTensor& tensor = checkpoint->tensors()[0];
    for (const RowBlock block : {RowBlock{0, kRows, 0, kColumns}, RowBlock{1, 1, 0, kColumns}, RowBlock{63, 66, 5, 100},
                                 RowBlock{149, 1, 132, 1}, RowBlock{150, 0, 0, 133}, RowBlock{0, 150, 133, 0}}) {
      std::vector<float> out(static_cast<size_t>(block.num_rows * block.num_columns));
      ASSERT_TRUE(checkpoint->ReadRows(tensor, block, out).has_value());
      for (size_t i = 0; i < out.size(); ++i) {
        const auto row = block.first_row + static_cast<int64_t>(i) / block.num_columns;
        const auto column = block.first_column + static_cast<int64_t>(i) % block.num_columns;
        ASSERT_EQ(out[i], stored[static_cast<size_t>(column * kRows + row)]) << row << " " << column;
      }
    }
    std::vector<float> out(static_cast<size_t>(kRows * kColumns));
    EXPECT_EQ(checkpoint->ReadRows(tensor, {0, kColumns, 0, kRows}, out).error().code, ErrorCode::kReadFailed);
    EXPECT_EQ(checkpoint->ReadRows({.name = "other", .type = DType::kF32, .shape = {1}}, {0, 1, 0, 1}, out).error().code,
              ErrorCode::kReadFailed);
  }
}

TEST_F(OnnxCheckpointTest, NoticesExternalDataThatBecameShorter) {
  ModelProto model = Linear("onnx::MatMul_12", "mlp/up_proj");
  const fs::path data = folder_.Write("model.data", MoveOutside(model, "model.data", 1));
  const std::unique_ptr<Checkpoint> checkpoint = Open(model);
  fs::resize_file(data, 10);
  std::vector<float> out(6);
  const Status read = checkpoint->ReadRows(checkpoint->tensors()[0], {0, 2, 0, 3}, out);
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code, ErrorCode::kFileChanged);
}

// models--org--name/snapshots/<revision>/onnx/..., with the files in blobs/, as huggingface_hub lays it out.
TEST_F(OnnxCheckpointTest, FollowsTheLinksOfTheHuggingFaceCache) {
  ModelProto model = Linear("onnx::MatMul_12", "mlp/up_proj");
  const TempFolder cache;
  cache.Write("models--a--b/blobs/1", MoveOutside(model, "model.onnx_data", 1));
  cache.Write("models--a--b/blobs/0", model.SerializeAsString());
  const fs::path folder = cache.path() / "models--a--b/snapshots/r/onnx";
  fs::create_directories(folder);
  fs::create_symlink("../../../blobs/0", folder / "model.onnx");
  fs::create_symlink("../../../blobs/1", folder / "model.onnx_data");
  const Result<std::unique_ptr<Checkpoint>> checkpoint = OpenOnnxCheckpoint(folder / "model.onnx");
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_THAT(Read(**checkpoint, (*checkpoint)->tensors()[0]), ElementsAre(0, 2, 4, 1, 3, 5));
}

class MicroOnnxTest : public testing::Test {
 protected:
  MicroOnnxTest() : micro_(OpenSafetensorsCheckpoint(TASKPRESS_TEST_DATA "/micro-e4b").value()) {}

  [[nodiscard]] std::unique_ptr<Checkpoint> Export(OnnxStyle style, bool bf16) const {
    ModelProto model = ExportOnnx(*micro_, style, bf16);
    folder_.Write("micro.onnx.data", MoveOutside(model, "micro.onnx.data", 256));
    Result<std::unique_ptr<Checkpoint>> opened = OpenOnnxCheckpoint(folder_.Write("micro.onnx", model.SerializeAsString()));
    EXPECT_TRUE(opened.has_value()) << opened.error().message;
    return opened ? *std::move(opened) : nullptr;
  }

  std::unique_ptr<Checkpoint> micro_;
  TempFolder folder_;
};

TEST_F(MicroOnnxTest, EveryTextTensorIsTheSafetensorsOneBitForBit) {
  constexpr std::string_view kPrefix = "model.language_model.";
  for (const OnnxStyle style : {OnnxStyle::kTorchScript, OnnxStyle::kDynamo, OnnxStyle::kDynamoUnoptimized, OnnxStyle::kModelBuilder}) {
    for (const bool bf16 : {false, true}) {
      SCOPED_TRACE(static_cast<int>(style));
      const std::unique_ptr<Checkpoint> onnx = Export(style, bf16);
      ASSERT_NE(onnx, nullptr);
      size_t tensors = 1;  // lm_head, which the checkpoint does not store
      for (const CheckpointTensor& tensor : micro_->tensors()) {
        if (!tensor.name.starts_with(kPrefix)) continue;
        ++tensors;
        const CheckpointTensor* found = onnx->Find("model." + tensor.name.substr(kPrefix.size()));
        ASSERT_NE(found, nullptr) << tensor.name;
        ASSERT_EQ(found->shape, tensor.shape) << tensor.name;
        const std::vector<float> expected = Read(*micro_, tensor);
        const std::vector<float> values = Read(*onnx, *found);
        ASSERT_EQ(std::memcmp(values.data(), expected.data(), expected.size() * sizeof(float)), 0) << tensor.name;
      }
      EXPECT_EQ(onnx->tensors().size(), tensors);
      EXPECT_EQ(Read(*onnx, "lm_head.weight"), Read(*micro_, "model.language_model.embed_tokens.weight"));
    }
  }
}

TEST_F(MicroOnnxTest, QuantizedLinearLayersAreWhatTheirCodesMean) {
  const std::unique_ptr<Checkpoint> onnx = Export(OnnxStyle::kQuantized, false);
  ASSERT_NE(onnx, nullptr);
  int in_blocks = 0;
  for (const CheckpointTensor& tensor : onnx->tensors()) {
    if (tensor.name == "lm_head.weight") continue;
    const std::vector<float> original = Read(*micro_, "model.language_model." + tensor.name.substr(6));
    std::vector<float> expected = original;
    if (tensor.type == DType::kI4) {
      expected = QuantizeOnnx("", original, tensor.shape[0], tensor.shape[1], 4, 32).values;
      ++in_blocks;
    }
    ASSERT_EQ(Read(*onnx, tensor), expected) << tensor.name;
  }
  EXPECT_EQ(in_blocks, 15 * 14 + 7);
}

TEST_F(MicroOnnxTest, ReadsTheSameFromSeveralThreads) {
  const std::unique_ptr<Checkpoint> onnx = Export(OnnxStyle::kTorchScript, true);
  ASSERT_NE(onnx, nullptr);
  const std::vector<float> expected = Read(*onnx, "model.layers.0.mlp.up_proj.weight");
  std::atomic<int> different = 0;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { different += Read(*onnx, "model.layers.0.mlp.up_proj.weight") != expected ? 1 : 0; });
  }
  threads.clear();
  EXPECT_EQ(different, 0);
}

// What a plain model of two layers of names says, truncated anywhere: an error, never a smaller model.
TEST_F(OnnxCheckpointTest, RefusesTruncationAtEveryByte) {
  ModelProto model = InBlocks(4).model;
  AddInitializer(model, OnnxFloats("model.embed_tokens.weight", {2, 3}, Count(6)));
  AddOnnxNode(model, "Gather", "/model/embed_tokens/Gather", {"model.embed_tokens.weight", "ids"});
  const std::string whole = model.SerializeAsString();
  ASSERT_NE(Open(model), nullptr);
  for (size_t size = 0; size < whole.size(); ++size) {
    ASSERT_FALSE(OpenOnnxCheckpoint(folder_.Write("cut.onnx", std::string_view(whole).substr(0, size))).has_value()) << size;
  }
}

}  // namespace
}  // namespace taskpress
