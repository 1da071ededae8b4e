#include "converter/onnx_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

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

constexpr std::string_view kModel = "model.onnx";
constexpr std::string_view kData = "model.onnx.data";

// A table in the model, and a vector of 32 bytes at 4096 of the file beside it, which has 4128.
ModelProto HonestModel(std::string& data) {
  ModelProto model = EmptyOnnx();
  AddInitializer(model, OnnxFloats("a.vector", {8}, std::vector<float>(8, 2.5F)));
  MoveOutside(model, std::string(kData), 1);
  data = std::string(4096, '\0') + RawBytes(std::span<const float>(std::vector<float>(8, 2.5F)));
  model.mutable_graph()->mutable_initializer(0)->mutable_external_data(1)->set_value("4096");
  AddInitializer(model, OnnxFloats("a.table", {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6}));
  AddOnnxNode(model, "Gather", "/a/Gather", {"a.table", "ids"});
  return model;
}

Result<OnnxModel> Open(const TempFolder& folder, const ModelProto& model) {
  return OnnxModel::Open(folder.Write(kModel, model.SerializeAsString()));
}

TEST(OnnxModelTest, ReadsInlineAndExternalTensorsAndNodes) {
  const TempFolder folder;
  std::string data;
  ModelProto honest = HonestModel(data);
  folder.Write(kData, data);
  SetOnnxInteger(honest.mutable_graph()->mutable_node()->at(0), "axis", -1);
  SetOnnxScopes(honest.mutable_graph()->mutable_node()->at(0), "a");
  const Result<OnnxModel> model = Open(folder, honest);
  ASSERT_TRUE(model.has_value()) << model.error().message;
  ASSERT_EQ(model->tensors().size(), 2U);
  EXPECT_EQ(model->tensors()[0].name, "a.vector");
  EXPECT_EQ(LoadLittle<float>(model->tensors()[0].bytes.data()), 2.5F);
  EXPECT_NE(model->tensors()[0].file, nullptr);
  EXPECT_THAT(model->tensors()[1].shape, ElementsAre(2, 3));
  EXPECT_EQ(LoadLittle<float>(model->tensors()[1].bytes.data() + 20), 6.0F);
  EXPECT_EQ(model->tensors()[1].file, nullptr);
  ASSERT_EQ(model->nodes().size(), 1U);
  EXPECT_EQ(model->nodes()[0].op, "Gather");
  EXPECT_EQ(model->nodes()[0].integers.at("axis"), -1);
  EXPECT_EQ(model->nodes()[0].name_scopes, "['', 'model', 'a', '/a/Gather']");
  EXPECT_THAT(model->nodes()[0].inputs, ElementsAre("a.table", "ids"));
}

TEST(OnnxModelTest, ReadsEveryTypeFromRawDataAndFromItsTypedField) {
  const TempFolder folder;
  ModelProto model = EmptyOnnx();
  struct Case {
    int type;
    DType expected;
    std::string raw;
    std::function<void(TensorProto&)> set;
  };
  const std::vector<Case> cases = {
      {TensorProto::FLOAT, DType::kF32, RawBytes({-1.5F}), [](TensorProto& t) { t.add_float_data(-1.5F); }},
      {TensorProto::DOUBLE, DType::kF64, RawBytes({-1.5}), [](TensorProto& t) { t.add_double_data(-1.5); }},
      {TensorProto::FLOAT16, DType::kF16, RawBytes<uint16_t>({0xbe00}), [](TensorProto& t) { t.add_int32_data(0xbe00); }},
      {TensorProto::BFLOAT16, DType::kBF16, RawBytes<uint16_t>({0xbfc0}), [](TensorProto& t) { t.add_int32_data(0xbfc0); }},
      {TensorProto::INT64, DType::kI64, RawBytes<int64_t>({-7}), [](TensorProto& t) { t.add_int64_data(-7); }},
      {TensorProto::INT32, DType::kI32, RawBytes<int32_t>({-7}), [](TensorProto& t) { t.add_int32_data(-7); }},
      {TensorProto::INT16, DType::kI16, RawBytes<int16_t>({-7}), [](TensorProto& t) { t.add_int32_data(-7); }},
      {TensorProto::INT8, DType::kI8, RawBytes<int8_t>({-7}), [](TensorProto& t) { t.add_int32_data(-7); }},
      {TensorProto::UINT8, DType::kU8, RawBytes<uint8_t>({200}), [](TensorProto& t) { t.add_int32_data(200); }},
      {TensorProto::BOOL, DType::kBool, RawBytes<uint8_t>({1}), [](TensorProto& t) { t.add_int32_data(1); }}};
  for (const Case& c : cases) {
    AddInitializer(model, RawOnnxTensor(Format("raw.{}", c.type), c.type, {1}, c.raw));
    TensorProto typed = RawOnnxTensor(Format("typed.{}", c.type), c.type, {1}, "");
    typed.clear_raw_data();
    c.set(typed);
    AddInitializer(model, typed);
  }
  const Result<OnnxModel> read = Open(folder, model);
  ASSERT_TRUE(read.has_value()) << read.error().message;
  for (size_t i = 0; i < cases.size(); ++i) {
    for (const OnnxTensor& tensor : read->tensors().subspan(2 * i, 2)) {
      EXPECT_EQ(tensor.type, cases[i].expected) << tensor.name;
      EXPECT_EQ(AsText(tensor.bytes), cases[i].raw) << tensor.name;
    }
  }
}

TEST(OnnxModelTest, TreatsAConstantLikeAnInitializer) {
  const TempFolder folder;
  ModelProto model = EmptyOnnx();
  onnx::NodeProto& one = AddOnnxNode(model, "Constant", "one", {});
  onnx::AttributeProto& value = *one.add_attribute();
  value.set_name("value");
  *value.mutable_t() = OnnxFloats("", {1, 2}, std::vector<float>{1, 2});
  onnx::NodeProto& two = AddOnnxNode(model, "Constant", "two", {});
  onnx::AttributeProto& floats = *two.add_attribute();
  floats.set_name("value_floats");
  for (const float x : {3.0F, 4.0F, 5.0F}) floats.add_floats(x);
  const Result<OnnxModel> read = Open(folder, model);
  ASSERT_TRUE(read.has_value()) << read.error().message;
  ASSERT_EQ(read->tensors().size(), 2U);
  EXPECT_EQ(read->tensors()[0].name, "one_out");
  EXPECT_EQ(read->tensors()[1].name, "two_out");
  EXPECT_THAT(read->tensors()[1].shape, ElementsAre(3));
}

TEST(OnnxModelTest, NamesTheTensorsOfSubgraphsFunctionsAndSparseConstants) {
  const TempFolder folder;
  ModelProto model = EmptyOnnx();
  onnx::NodeProto& branch = AddOnnxNode(model, "If", "branch", {"condition"});
  onnx::AttributeProto& then = *branch.add_attribute();
  then.set_name("then_branch");
  *then.mutable_g()->add_initializer() = OnnxFloats("hidden", {2, 2}, std::vector<float>(4));
  *then.mutable_g()->add_initializer() = RawOnnxTensor("index", TensorProto::INT64, {4}, std::string(32, '\0'));
  onnx::NodeProto& inner = *then.mutable_g()->add_node();
  inner.set_op_type("MatMul");
  inner.add_input("outer.weight");
  onnx::FunctionProto& function = *model.add_functions();
  function.set_name("f");
  onnx::NodeProto& constant = *function.add_node();
  constant.set_op_type("Constant");
  constant.add_output("c");
  onnx::AttributeProto& value = *constant.add_attribute();
  *value.mutable_t() = OnnxFloats("", {3}, std::vector<float>(3));
  const Result<OnnxModel> read = Open(folder, model);
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_THAT(read->unreachable(), ElementsAre("\"hidden\" [2,2] in node branch", "\"c\" [3] in function f"));
  EXPECT_THAT(read->nodes()[0].inputs, ElementsAre("outer.weight"));
  EXPECT_EQ(read->nodes()[0].op, "");
}

struct Lie {
  std::string_view name;
  std::function<void(ModelProto&)> tell;  // initializer 0 is the external vector, 1 the inline table
  ErrorCode code;
  std::string_view message;
};

TensorProto& External(ModelProto& model) { return *model.mutable_graph()->mutable_initializer(0); }
TensorProto& Inline(ModelProto& model) { return *model.mutable_graph()->mutable_initializer(1); }
std::string& Entry(ModelProto& model, int index) { return *External(model).mutable_external_data(index)->mutable_value(); }

TEST(OnnxModelTest, RefusesEveryLie) {
  using enum ErrorCode;
  const std::vector<Lie> lies = {
      {"N3 no graph", [](ModelProto& m) { m.clear_graph(); }, kOnnxModel, "holds no graph"},
      {"N3 no operator set", [](ModelProto& m) { m.clear_opset_import(); }, kOnnxModel, "imports no operator set"},
      {"N3 training", [](ModelProto& m) { m.add_training_info(); }, kOnnxUnsupported, "training_info"},
      {"N3 sparse", [](ModelProto& m) { m.mutable_graph()->add_sparse_initializer(); }, kOnnxUnsupported, "1 sparse initializers"},
      {"N4 no name", [](ModelProto& m) { Inline(m).clear_name(); }, kOnnxModel, "a name has 1 to 1024 bytes"},
      {"N4 long name", [](ModelProto& m) { Inline(m).set_name(std::string(1025, 'a')); }, kOnnxModel, "a name has 1 to 1024 bytes"},
      {"N4 control character", [](ModelProto& m) { Inline(m).set_name("a\x1b[31m"); }, kOnnxModel, "tensor \"a\\x1b[31m\""},
      {"N4 one name twice", [](ModelProto& m) { Inline(m).set_name("a.vector"); }, kOnnxModel, "two tensors are called \"a.vector\""},
      {"N4 a constant under an initializer's name",
       [](ModelProto& m) {
         onnx::NodeProto& node = AddOnnxNode(m, "Constant", "c", {});
         node.set_output(0, "a.table");
         *node.add_attribute()->mutable_t() = OnnxFloats("", {}, std::vector<float>(1));
       },
       kOnnxModel, "two tensors are called \"a.table\""},
      {"N5 no type", [](ModelProto& m) { Inline(m).clear_data_type(); }, kOnnxModel, "data_type 0 is unknown"},
      {"N5 unknown type", [](ModelProto& m) { Inline(m).set_data_type(99); }, kOnnxModel, "data_type 99 is unknown"},
      {"N5 negative type", [](ModelProto& m) { Inline(m).set_data_type(-1); }, kOnnxModel, "data_type -1 is unknown"},
      {"N6 negative dimension", [](ModelProto& m) { Inline(m).set_dims(0, -2); }, kOnnxModel, "negative or overflows at dimension -2"},
      {"N6 overflow", [](ModelProto& m) { Inline(m).set_dims(0, 1LL << 62); }, kOnnxModel, "overflows"},
      {"N6 overflow behind a zero",
       [](ModelProto& m) {
         Inline(m).set_dims(0, 0);
         for (int i = 0; i < 2; ++i) Inline(m).add_dims(1LL << 40);
       },
       kOnnxModel, "overflows"},
      {"N6 nine dimensions",
       [](ModelProto& m) {
         for (int i = 0; i < 7; ++i) Inline(m).add_dims(1);
       },
       kOnnxModel, "9 dimensions"},
      {"N7 two kinds of data", [](ModelProto& m) { Inline(m).add_float_data(1); }, kOnnxModel, "raw_data and 1 typed elements"},
      {"N7 the wrong typed field",
       [](ModelProto& m) {
         Inline(m).clear_raw_data();
         for (int i = 0; i < 6; ++i) Inline(m).add_int32_data(i);
       },
       kOnnxModel, "a field that is not FLOAT's"},
      {"N7 a typed element too large",
       [](ModelProto& m) {
         Inline(m).clear_raw_data();
         Inline(m).set_data_type(TensorProto::BFLOAT16);
         for (int i = 0; i < 6; ++i) Inline(m).add_int32_data(65536);
       },
       kOnnxModel, "int32_data holds 65536, no BFLOAT16"},
      {"N7 a segment", [](ModelProto& m) { Inline(m).mutable_segment()->set_begin(0); }, kOnnxModel, "is a segment"},
      {"N7 unknown place", [](ModelProto& m) { Inline(m).mutable_unknown_fields()->assign("\x70\x02", 2); },  // field 14, varint 2
       kOnnxModel, "data_location is neither"},
      {"N7 external entries of inline data", [](ModelProto& m) { Inline(m).add_external_data()->set_key("location"); }, kOnnxModel,
       "its data_location is DEFAULT"},
      {"N7 inline data of an external tensor", [](ModelProto& m) { External(m).set_raw_data("x"); }, kOnnxModel,
       "its data_location is EXTERNAL"},
      {"N8 no data", [](ModelProto& m) { Inline(m).clear_raw_data(); }, kOnnxModel, "holds 0 bytes, FLOAT [2,3] needs 24"},
      {"N8 a byte too few", [](ModelProto& m) { Inline(m).mutable_raw_data()->pop_back(); }, kOnnxModel, "holds 23 bytes"},
      {"N8 a byte too many", [](ModelProto& m) { Inline(m).mutable_raw_data()->push_back('x'); }, kOnnxModel, "holds 25 bytes"},
      {"N8 a shape too large", [](ModelProto& m) { Inline(m).set_dims(0, 1LL << 60); }, kOnnxModel, "needs more than 2^64"},
      {"N9 no location", [](ModelProto& m) { External(m).clear_external_data(); }, kOnnxModel, "names no location"},
      {"N9 a key twice", [](ModelProto& m) { External(m).mutable_external_data(1)->set_key("location"); }, kOnnxModel,
       "two entries of one key"},
      {"N9 many entries",
       [](ModelProto& m) {
         for (int i = 0; i < 14; ++i) External(m).add_external_data()->set_key(std::to_string(i));
       },
       kOnnxModel, "17 entries of external_data"},
      {"N9 control character", [](ModelProto& m) { Entry(m, 0) = "\x1b[31m"; }, kUnsafePath, "at \"\\x1b[31m\""},
      {"N9 offset is text", [](ModelProto& m) { Entry(m, 1) = "4096x"; }, kOnnxModel, "offset is no number of bytes"},
      {"N9 offset is negative", [](ModelProto& m) { Entry(m, 1) = "-1"; }, kOnnxModel, "offset is no number of bytes"},
      {"N9 offset exceeds 64 bits", [](ModelProto& m) { Entry(m, 1) = "18446744073709551616"; }, kOnnxModel,
       "offset is no number of bytes"},
      {"N9 length is empty", [](ModelProto& m) { Entry(m, 2) = ""; }, kOnnxModel, "length is no number of bytes"},
      {"N9 length of another shape", [](ModelProto& m) { Entry(m, 2) = "28"; }, kOnnxModel, "external length 28, FLOAT [8] needs 32"},
      {"N9 behind the end", [](ModelProto& m) { Entry(m, 1) = "4097"; }, kOnnxModel, "32 bytes at 4097 end outside"},
      {"N9 offset wraps round", [](ModelProto& m) { Entry(m, 1) = "18446744073709551615"; }, kOnnxModel, "end outside"},
      {"N9 shape behind the end without a length",
       [](ModelProto& m) {
         External(m).mutable_external_data()->RemoveLast();
         External(m).set_dims(0, 1LL << 40);
       },
       kOnnxModel, "end outside"},
      {"N9 missing file", [](ModelProto& m) { Entry(m, 0) = "other.data"; }, kOnnxModel, "data file \"other.data\" is missing"},
      {"N9 a folder", [](ModelProto& m) { Entry(m, 0) = "sub"; }, kNotRegularFile, "not a regular file"},
      {"N9 parent folder", [](ModelProto& m) { Entry(m, 0) = "../model.onnx.data"; }, kUnsafePath, "no path below the model's folder"},
      {"N9 parent folder behind a folder", [](ModelProto& m) { Entry(m, 0) = "sub/../model.onnx.data"; }, kUnsafePath, "no path below"},
      {"N9 absolute", [](ModelProto& m) { Entry(m, 0) = "/etc/passwd"; }, kUnsafePath, "no path below"},
      {"N9 backslash", [](ModelProto& m) { Entry(m, 0) = "..\\model.onnx.data"; }, kUnsafePath, "no path below"},
      {"N9 zero byte", [](ModelProto& m) { Entry(m, 0) = std::string("model.onnx.data\0x", 17); }, kUnsafePath, "no path below"},
      {"N9 the folder itself", [](ModelProto& m) { Entry(m, 0) = "."; }, kUnsafePath, "no path below"},
      {"N9 empty part", [](ModelProto& m) { Entry(m, 0) = "sub/"; }, kUnsafePath, "no path below"},
      {"N9 a link out of the folder", [](ModelProto& m) { Entry(m, 0) = "link.data"; }, kUnsafePath, "outside the checkpoint folder"},
      {"N9 a linked folder", [](ModelProto& m) { Entry(m, 0) = "linked/secret"; }, kUnsafePath, "outside the checkpoint folder"},
  };
  const TempFolder outside;
  outside.Write("secret", std::string(8192, 's'));
  const TempFolder folder;
  std::string data;
  const ModelProto honest = HonestModel(data);
  folder.Write(kData, data);
  folder.Write("sub/x", "x");
  fs::create_symlink(outside.path() / "secret", folder.path() / "link.data");
  fs::create_directory_symlink(outside.path(), folder.path() / "linked");
  ASSERT_TRUE(Open(folder, honest).has_value());
  for (const Lie& lie : lies) {
    SCOPED_TRACE(lie.name);
    ModelProto model = honest;
    lie.tell(model);
    const Result<OnnxModel> read = Open(folder, model);
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(InfoOf(read.error().code).name, InfoOf(lie.code).name) << read.error().message;
    EXPECT_THAT(read.error().message, HasSubstr(lie.message));
    EXPECT_THAT(read.error().message, HasSubstr(lie.code == kNotRegularFile ? "" : "model.onnx: "));
  }
}

void ExpectRefused(const TempFolder& folder, std::string_view bytes, ErrorCode code, std::string_view message) {
  const Result<OnnxModel> read = OnnxModel::Open(folder.Write(kModel, bytes));
  ASSERT_FALSE(read.has_value()) << message;
  EXPECT_EQ(InfoOf(read.error().code).name, InfoOf(code).name) << read.error().message;
  EXPECT_THAT(read.error().message, HasSubstr(message));
}

// A field of a message, length-delimited.
std::string Field(int number, std::string_view bytes) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  size_t length = bytes.size();
  for (; length >= 0x80; length >>= 7) out += static_cast<char>((length & 0x7f) | 0x80);
  return out + static_cast<char>(length) + std::string(bytes);
}

TEST(OnnxModelTest, RefusesFilesThatAreNoModel) {
  using enum ErrorCode;
  const TempFolder folder;
  EXPECT_EQ(OnnxModel::Open(folder.path() / "absent").error().code, kFileNotFound);
  ExpectRefused(folder, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", kNotATensorFile, "Git LFS pointer");  // N1
  ExpectRefused(folder, "", kOnnxModel, "has 0 bytes");
  ExpectRefused(folder, "<!doctype html><html></html>", kOnnxModel, "is no ONNX model");
  ExpectRefused(folder, Field(7, "") + '\xff', kOnnxModel, "is no ONNX model");
  ExpectRefused(folder, "\x3b\x3c", kOnnxModel, "");  // an empty group of number 7
}

TEST(OnnxModelTest, RefusesFilesThatGrowInMemory) {
  const TempFolder folder;
  std::string nodes;
  for (int i = 0; i < 4'000'001; ++i) nodes += std::string_view("\x0a\x00", 2);  // N2: empty nodes, two bytes each
  ExpectRefused(folder, Field(7, nodes), ErrorCode::kOnnxModel, "more than 4000000 fields");
  // int64_data of more than 256 MiB, one byte for each number of eight.
  ExpectRefused(folder, Field(7, Field(5, Field(7, std::string((256 << 20) + 1, '\0')) + Field(8, "a"))), ErrorCode::kOnnxModel,
                "bytes of integers outside raw_data");
  std::string nested;
  for (int i = 0; i < 60; ++i) nested = Field(1, Field(5, Field(6, nested)));  // graphs in attributes of nodes
  ExpectRefused(folder, Field(7, nested), ErrorCode::kOnnxModel, "is no ONNX model, or damaged");
}

TEST(OnnxModelTest, RefusesTruncationAtEveryByte) {
  const TempFolder folder;
  std::string data;
  const std::string whole = HonestModel(data).SerializeAsString();
  folder.Write(kData, data);
  for (size_t size = 0; size < whole.size(); ++size) {
    const Result<OnnxModel> read = OnnxModel::Open(folder.Write(kModel, std::string_view(whole).substr(0, size)));
    ASSERT_FALSE(read.has_value()) << size;
    EXPECT_EQ(read.error().code, ErrorCode::kOnnxModel) << size << " " << read.error().message;
  }
  for (size_t size = 4000; size < data.size(); ++size) {
    folder.Write(kData, std::string_view(data).substr(0, size));
    const Result<OnnxModel> read = OnnxModel::Open(folder.Write(kModel, whole));
    ASSERT_FALSE(read.has_value()) << size;
    EXPECT_EQ(read.error().code, ErrorCode::kOnnxModel) << size;
  }
}

// One byte changed at a time: any answer will do, as long as it is one.
TEST(OnnxModelTest, SurvivesEveryDamagedByte) {
  const TempFolder folder;
  std::string data;
  const std::string whole = HonestModel(data).SerializeAsString();
  folder.Write(kData, data);
  int refused = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const char flip : {'\x01', '\x80', '\xff'}) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      refused += OnnxModel::Open(folder.Write(kModel, damaged)).has_value() ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace taskpress
