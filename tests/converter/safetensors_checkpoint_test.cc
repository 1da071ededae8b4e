#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <limits>
#include <thread>

#include "converter/checkpoint.h"
#include "schema/base/error.h"
#include "schema/base/half.h"
#include "schema/safetensors.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

RawTensor Floats(std::string name, std::vector<int64_t> shape, std::vector<float> values) {
  return {.name = std::move(name), .dtype = "F32", .shape = std::move(shape), .bytes = RawBytes(std::span<const float>(values))};
}

std::string OneTensor(std::string name, float value = 1.0F) {
  return HonestSafetensors(std::vector{Floats(std::move(name), {1}, {value})});
}

std::string Index(std::string_view weight_map) { return Format(R"({{"metadata":{{"total_size":8}},"weight_map":{}}})", weight_map); }

constexpr std::string_view kTwoShards = R"({"a":"model-1.safetensors","b":"model-2.safetensors"})";

void ExpectError(const fs::path& path, ErrorCode code, std::string_view message) {
  const Result<std::unique_ptr<Checkpoint>> checkpoint = OpenSafetensorsCheckpoint(path);
  ASSERT_FALSE(checkpoint.has_value()) << message;
  EXPECT_EQ(InfoOf(checkpoint.error().code).name, InfoOf(code).name) << checkpoint.error().message;
  EXPECT_THAT(checkpoint.error().message, HasSubstr(message));
}

std::vector<float> Read(const Checkpoint& checkpoint, std::string_view name) {
  const CheckpointTensor* tensor = checkpoint.Find(name);
  if (tensor == nullptr) {
    ADD_FAILURE() << "no tensor " << name;
    return {};
  }
  const int64_t rows = MatrixRows(tensor->shape);
  const int64_t columns = MatrixColumns(tensor->shape);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  const Status read = checkpoint.ReadRows(*tensor, {.first_row = 0, .num_rows = rows, .first_column = 0, .num_columns = columns}, values);
  EXPECT_TRUE(read.has_value()) << read.error().message;
  return values;
}

TEST(MatrixShapeTest, RankOneIsARowAndHigherRanksKeepTheFirstDimension) {
  EXPECT_EQ(MatrixRows({}), 1);
  EXPECT_EQ(MatrixColumns({}), 1);
  EXPECT_EQ(MatrixRows({5}), 1);
  EXPECT_EQ(MatrixColumns({5}), 5);
  EXPECT_EQ(MatrixRows({2, 3, 4}), 2);
  EXPECT_EQ(MatrixColumns({2, 3, 4}), 12);
  EXPECT_EQ(MatrixColumns({0, 1LL << 40, 1LL << 40}), 0);
}

TEST(CheckpointFolderTest, OpensASingleFileByFolderOrByName) {
  const TempFolder folder;
  const fs::path file = folder.Write("model.safetensors", OneTensor("a", 3.0F));
  for (const fs::path& path : {folder.path(), file}) {
    const Result<std::unique_ptr<Checkpoint>> checkpoint = OpenSafetensorsCheckpoint(path);
    ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
    EXPECT_THAT(Read(**checkpoint, "a"), ElementsAre(3.0F));
    EXPECT_EQ((*checkpoint)->description(), path.string());
    EXPECT_EQ((*checkpoint)->Find("b"), nullptr);
  }
}

TEST(CheckpointFolderTest, JoinsTheShardsOfAnIndexSortedByName) {
  const TempFolder folder;
  folder.Write("model.safetensors.index.json", Index(kTwoShards));
  folder.Write("model-1.safetensors", OneTensor("a", 1.0F));
  folder.Write("model-2.safetensors", OneTensor("b", 2.0F));
  folder.Write("model-3.safetensors", "not named by the index, so not read");
  folder.Write("pytorch_model.bin", "ignored next to safetensors");
  const Result<std::unique_ptr<Checkpoint>> checkpoint = OpenSafetensorsCheckpoint(folder.path());
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  ASSERT_EQ((*checkpoint)->tensors().size(), 2U);
  EXPECT_EQ((*checkpoint)->tensors()[0].name, "a");
  EXPECT_EQ((*checkpoint)->tensors()[1].name, "b");
  EXPECT_THAT(Read(**checkpoint, "b"), ElementsAre(2.0F));
}

TEST(CheckpointFolderTest, PositionsFollowTheFilesNotTheNames) {
  const TempFolder folder;
  // "c" lies in the first file, "a" behind "b" in the second.
  folder.Write("model-1.safetensors", OneTensor("c"));
  folder.Write("model-2.safetensors", HonestSafetensors(std::vector{Floats("b", {1}, {1.0F}), Floats("a", {1}, {2.0F})}));
  folder.Write("model.safetensors.index.json", Index(R"({"a":"model-2.safetensors","b":"model-2.safetensors","c":"model-1.safetensors"})"));
  const std::unique_ptr<Checkpoint> checkpoint = OpenSafetensorsCheckpoint(folder.path()).value();
  const auto position = [&](std::string_view name) { return checkpoint->Position(*checkpoint->Find(name)); };
  EXPECT_LT(position("c"), position("b"));
  EXPECT_LT(position("b"), position("a"));
}

TEST(CheckpointFolderTest, AcceptsAnIndexWhoseOnlyShardIsModelSafetensors) {
  const TempFolder folder;
  folder.Write("model.safetensors.index.json", Index(R"({"a":"model.safetensors"})"));
  folder.Write("model.safetensors", OneTensor("a"));
  EXPECT_TRUE(OpenSafetensorsCheckpoint(folder.path()).has_value());
}

TEST(CheckpointFolderTest, IgnoresAnExtraCopyOfATensorThatLivesInAnotherShard) {
  const TempFolder folder;
  folder.Write("model.safetensors.index.json", Index(kTwoShards));
  folder.Write("model-1.safetensors", OneTensor("a", 1.0F));
  folder.Write("model-2.safetensors", HonestSafetensors(std::vector{Floats("a", {1}, {9.0F}), Floats("b", {1}, {2.0F})}));
  const Result<std::unique_ptr<Checkpoint>> checkpoint = OpenSafetensorsCheckpoint(folder.path());
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  ASSERT_EQ((*checkpoint)->tensors().size(), 2U);
  EXPECT_THAT(Read(**checkpoint, "a"), ElementsAre(1.0F));
}

TEST(CheckpointFolderTest, RefusesFoldersThatAreNoCheckpoint) {
  using enum ErrorCode;
  const TempFolder folder;
  ExpectError(folder.path() / "absent", kFileNotFound, "absent");
  ExpectError(folder.path(), kCheckpointLayout, "holds neither");  // C1
  folder.Write("adapter_model.safetensors", OneTensor("a"));
  ExpectError(folder.path(), kCheckpointLayout, "with --lora");
  const TempFolder both;
  both.Write("model.safetensors.index.json", Index(kTwoShards));
  both.Write("model-1.safetensors", OneTensor("a"));
  both.Write("model-2.safetensors", OneTensor("b"));
  both.Write("model.safetensors", OneTensor("a"));
  ExpectError(both.path(), kCheckpointLayout, "two checkpoints");  // C2
  ExpectError(both.path() / "model.safetensors.index.json", kCheckpointLayout, "give its folder");
}

TEST(CheckpointFolderTest, RefusesPickleFiles) {
  const TempFolder folder;
  const fs::path file = folder.Write("pytorch_model.bin", "PK");
  ExpectError(folder.path(), ErrorCode::kPickleRefused, "pytorch_model.bin");  // C3
  ExpectError(file, ErrorCode::kPickleRefused, "pytorch_model.bin");
  folder.Write("model.safetensors.index.json", Index(R"({"a":"pytorch_model.bin"})"));
  ExpectError(folder.path(), ErrorCode::kPickleRefused, "shard pytorch_model.bin");
}

struct IndexLie {
  std::string_view name;
  std::string index;
  ErrorCode code;
  std::string_view message;
};

TEST(CheckpointFolderTest, RefusesEveryLieOfTheIndex) {
  using enum ErrorCode;
  const std::vector<IndexLie> lies = {
      {"C4 syntax", "{", kBadJson, "model.safetensors.index.json"},
      {"C4 duplicate tensor", Index(R"({"a":"model-1.safetensors","a":"model-2.safetensors"})"), kBadJson, "duplicate key \"a\""},
      {"C4 not an object", "[]", kCheckpointIndex, "weight_map"},
      {"C4 no weight_map", "{}", kCheckpointIndex, "weight_map"},
      {"C4 weight_map not an object", Index("[]"), kCheckpointIndex, "weight_map"},
      {"C4 empty weight_map", Index("{}"), kCheckpointIndex, "weight_map"},
      {"C4 number for a shard", Index(R"({"a":1})"), kCheckpointIndex, "entry \"a\""},
      {"C4 empty tensor name", Index(R"({"":"model-1.safetensors"})"), kCheckpointIndex, "entry \"\""},
      {"C5 parent folder", Index(R"({"a":"../model-1.safetensors"})"), kUnsafePath, "not a plain file name"},
      {"C5 absolute", Index(R"({"a":"/etc/model.safetensors"})"), kUnsafePath, "not a plain file name"},
      {"C5 subfolder", Index(R"({"a":"x/model-1.safetensors"})"), kUnsafePath, "not a plain file name"},
      {"C5 backslash", Index(R"({"a":"x\\model-1.safetensors"})"), kUnsafePath, "not a plain file name"},
      {"C5 zero byte", Index(R"({"a":"model-1.safetensors\u0000x"})"), kUnsafePath, "not a plain file name"},
      {"C5 the folder itself", Index(R"({"a":"."})"), kUnsafePath, "not a plain file name"},
      {"C5 empty", Index(R"({"a":""})"), kUnsafePath, "not a plain file name"},
      {"C5 another kind of file", Index(R"({"a":"config.json"})"), kCheckpointIndex, "does not end in .safetensors"},
      {"C5 missing shard", Index(R"({"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-9.safetensors"})"), kCheckpointIndex,
       "shard model-9.safetensors is missing; the index names 3"},
      {"C7 tensor in another shard", Index(R"({"a":"model-2.safetensors","b":"model-1.safetensors"})"), kCheckpointIndex,
       "shard model-1.safetensors lacks 1 tensors that the index promises there: \"b\""},
      {"C7 tensor nowhere", Index(R"({"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-2.safetensors"})"), kCheckpointIndex,
       "shard model-2.safetensors lacks 1 tensors that the index promises there: \"c\""},
      {"C8 tensor without a name in the index", Index(R"({"a":"model-1.safetensors","c":"model-2.safetensors"})"), kCheckpointIndex,
       "shard model-2.safetensors holds 1 tensors that the index does not name: \"b\""},
  };
  for (const IndexLie& lie : lies) {
    SCOPED_TRACE(lie.name);
    const TempFolder folder;
    folder.Write("model.safetensors.index.json", lie.index);
    folder.Write("model-1.safetensors", OneTensor("a"));
    folder.Write("model-2.safetensors", OneTensor("b"));
    folder.Write("config.json", "{}");
    ExpectError(folder.path(), lie.code, lie.message);
  }
}

TEST(CheckpointFolderTest, NamesTheShardThatIsDamaged) {
  const TempFolder folder;
  folder.Write("model.safetensors.index.json", Index(kTwoShards));
  folder.Write("model-1.safetensors", OneTensor("a"));
  folder.Write("model-2.safetensors", "version https://git-lfs.github.com/spec/v1\n");
  ExpectError(folder.path(), ErrorCode::kNotATensorFile, "model-2.safetensors: is a Git LFS pointer");
}

// models--org--name/{blobs/<hash>, snapshots/<revision>/<links>}, as huggingface_hub lays it out.
TEST(CheckpointLinkTest, FollowsTheLinksOfTheHuggingFaceCache) {
  const TempFolder cache;
  cache.Write("models--google--gemma-3n/blobs/1f00", OneTensor("a", 7.0F));
  cache.Write("models--google--gemma-3n/blobs/1f01", Index(R"({"a":"model-1.safetensors"})"));
  const fs::path snapshot = cache.path() / "models--google--gemma-3n/snapshots/abc";
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/1f00", snapshot / "model-1.safetensors");
  fs::create_symlink("../../blobs/1f01", snapshot / "model.safetensors.index.json");
  const Result<std::unique_ptr<Checkpoint>> checkpoint = OpenSafetensorsCheckpoint(snapshot);
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_THAT(Read(**checkpoint, "a"), ElementsAre(7.0F));

  cache.Write("models--google--gemma-3n/blobs/1f00", "damaged!");
  ExpectError(snapshot, ErrorCode::kNotATensorFile, "model-1.safetensors: ");
  fs::remove(cache.path() / "models--google--gemma-3n/blobs/1f00");
  ExpectError(snapshot, ErrorCode::kCheckpointIndex, "model-1.safetensors: is a link whose target cannot be reached");
}

TEST(CheckpointLinkTest, FollowsALinkInsideTheFolder) {
  const TempFolder folder;
  folder.Write("real.safetensors", OneTensor("a"));
  fs::create_symlink("real.safetensors", folder.path() / "model.safetensors");
  EXPECT_TRUE(OpenSafetensorsCheckpoint(folder.path()).has_value());
}

TEST(CheckpointLinkTest, RefusesLinksThatLeaveTheFolder) {
  const TempFolder outside;
  const fs::path secret = outside.Write("secret.safetensors", OneTensor("a"));
  const TempFolder folder;
  fs::create_symlink(secret, folder.path() / "model.safetensors");
  ExpectError(folder.path(), ErrorCode::kUnsafePath, "outside the checkpoint folder");
  fs::remove(folder.path() / "model.safetensors");
  folder.Write("model.safetensors.index.json", Index(R"({"a":"model-1.safetensors"})"));
  fs::create_symlink(secret, folder.path() / "model-1.safetensors");
  ExpectError(folder.path(), ErrorCode::kUnsafePath, secret.string());

  // A cache layout does not help a link that leaves its own repository, nor a folder that is no snapshot.
  const fs::path snapshot = outside.path() / "models--a--b/snapshots/r";
  fs::create_directories(snapshot);
  fs::create_symlink(secret, snapshot / "model.safetensors");
  ExpectError(snapshot, ErrorCode::kUnsafePath, "outside the checkpoint folder");
  const fs::path not_snapshot = outside.path() / "models--a--b/other/r";
  fs::create_directories(not_snapshot);
  outside.Write("models--a--b/blobs/x", OneTensor("a"));
  fs::create_symlink("../../blobs/x", not_snapshot / "model.safetensors");
  ExpectError(not_snapshot, ErrorCode::kUnsafePath, "outside the checkpoint folder");
  // A neighbour whose name begins with the folder's name is still outside.
  outside.Write("ckpt-2/x", OneTensor("a"));
  fs::create_directories(outside.path() / "ckpt");
  fs::create_symlink("../ckpt-2/x", outside.path() / "ckpt/model.safetensors");
  ExpectError(outside.path() / "ckpt", ErrorCode::kUnsafePath, "outside the checkpoint folder");
}

class ReadRowsTest : public testing::Test {
 protected:
  std::unique_ptr<Checkpoint> Open(const std::vector<RawTensor>& tensors) {
    Result<std::unique_ptr<Checkpoint>> checkpoint = OpenSafetensorsCheckpoint(folder_.Write("t.safetensors", HonestSafetensors(tensors)));
    EXPECT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
    return *std::move(checkpoint);
  }
  TempFolder folder_;
};

TEST_F(ReadRowsTest, ConvertsEveryTypeFromUnalignedBytes) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  // The I8 in front leaves everything behind it at odd addresses.
  const std::unique_ptr<Checkpoint> checkpoint =
      Open({{.name = "i8", .dtype = "I8", .shape = {3}, .bytes = RawBytes<int8_t>({-128, 0, 127})},
            {.name = "bf16", .dtype = "BF16", .shape = {3}, .bytes = RawBytes<uint16_t>({0x3f80, 0xc0a0, 0x7f80})},
            {.name = "f16", .dtype = "F16", .shape = {3}, .bytes = RawBytes<uint16_t>({0x3c00, 0x0001, 0xfc00})},
            {.name = "f32", .dtype = "F32", .shape = {2}, .bytes = RawBytes({0.1F, -kInfinity})},
            {.name = "f64", .dtype = "F64", .shape = {2}, .bytes = RawBytes({0.1, -2.5})},
            {.name = "i16", .dtype = "I16", .shape = {2}, .bytes = RawBytes<int16_t>({-32768, 7})},
            {.name = "i32", .dtype = "I32", .shape = {2}, .bytes = RawBytes<int32_t>({-16777216, 16777217})},
            {.name = "i64", .dtype = "I64", .shape = {1}, .bytes = RawBytes<int64_t>({-(1LL << 40)})},
            {.name = "u8", .dtype = "U8", .shape = {1}, .bytes = RawBytes<uint8_t>({255})},
            {.name = "bool", .dtype = "BOOL", .shape = {3}, .bytes = RawBytes<uint8_t>({0, 1, 2})}});
  EXPECT_THAT(Read(*checkpoint, "i8"), ElementsAre(-128.0F, 0.0F, 127.0F));
  EXPECT_THAT(Read(*checkpoint, "bf16"), ElementsAre(1.0F, -5.0F, kInfinity));
  EXPECT_THAT(Read(*checkpoint, "f16"), ElementsAre(1.0F, 0x1p-24F, -kInfinity));
  EXPECT_THAT(Read(*checkpoint, "f32"), ElementsAre(0.1F, -kInfinity));
  EXPECT_THAT(Read(*checkpoint, "f64"), ElementsAre(0.1F, -2.5F));
  EXPECT_THAT(Read(*checkpoint, "i16"), ElementsAre(-32768.0F, 7.0F));
  EXPECT_THAT(Read(*checkpoint, "i32"), ElementsAre(-16777216.0F, 16777216.0F));
  EXPECT_THAT(Read(*checkpoint, "i64"), ElementsAre(-0x1p40F));
  EXPECT_THAT(Read(*checkpoint, "u8"), ElementsAre(255.0F));
  EXPECT_THAT(Read(*checkpoint, "bool"), ElementsAre(0.0F, 1.0F, 1.0F));
}

TEST_F(ReadRowsTest, ReadsBlocksOfAMatrixAndOfHigherRanks) {
  std::vector<float> values(24);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const std::unique_ptr<Checkpoint> checkpoint =
      Open({Floats("matrix", {4, 6}, values), Floats("cube", {2, 3, 4}, values), Floats("empty", {0, 4}, {})});
  std::vector<float> block(4);
  ASSERT_TRUE(
      checkpoint->ReadRows(*checkpoint->Find("matrix"), {.first_row = 1, .num_rows = 2, .first_column = 2, .num_columns = 2}, block));
  EXPECT_THAT(block, ElementsAre(8.0F, 9.0F, 14.0F, 15.0F));
  ASSERT_TRUE(checkpoint->ReadRows(*checkpoint->Find("cube"), {.first_row = 1, .num_rows = 1, .first_column = 8, .num_columns = 4}, block));
  EXPECT_THAT(block, ElementsAre(20.0F, 21.0F, 22.0F, 23.0F));
  std::vector<float> rows(12);
  ASSERT_TRUE(
      checkpoint->ReadRows(*checkpoint->Find("matrix"), {.first_row = 2, .num_rows = 2, .first_column = 0, .num_columns = 6}, rows));
  EXPECT_EQ(rows, std::vector<float>(values.begin() + 12, values.end()));
  EXPECT_TRUE(checkpoint->ReadRows(*checkpoint->Find("empty"), {.first_row = 0, .num_rows = 0, .first_column = 0, .num_columns = 4}, {}));
  EXPECT_TRUE(checkpoint->ReadRows(*checkpoint->Find("matrix"), {.first_row = 4, .num_rows = 0, .first_column = 6, .num_columns = 0}, {}));
}

TEST_F(ReadRowsTest, RefusesBlocksThatDoNotFit) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  const std::unique_ptr<Checkpoint> checkpoint = Open({Floats("m", {2, 2}, {1, 2, 3, 4})});
  const CheckpointTensor& tensor = *checkpoint->Find("m");
  std::vector<float> out(4);
  for (const RowBlock block : {RowBlock{0, 3, 0, 2}, RowBlock{1, 2, 0, 2}, RowBlock{-1, 2, 0, 2}, RowBlock{0, 2, 1, 2},
                               RowBlock{0, 2, 0, 1}, RowBlock{0, -1, 0, -4}, RowBlock{kMax, kMax, 0, 2}, RowBlock{0, 2, kMax, kMax}}) {
    const Status read = checkpoint->ReadRows(tensor, block, out);
    ASSERT_FALSE(read.has_value()) << block.first_row << " " << block.num_rows;
    EXPECT_EQ(read.error().code, ErrorCode::kReadFailed);
  }
  EXPECT_FALSE(checkpoint->ReadRows({.name = "other", .type = DType::kF32, .shape = {2, 2}}, {0, 2, 0, 2}, out).has_value());
  // The checkpoint's own record counts, not the shape that the caller's copy claims.
  EXPECT_FALSE(checkpoint->ReadRows({.name = "m", .type = DType::kF32, .shape = {4, 4}}, {2, 2, 0, 2}, out).has_value());
}

TEST_F(ReadRowsTest, NoticesAFileThatBecameShorter) {
  const std::unique_ptr<Checkpoint> checkpoint = Open({Floats("m", {1, 4}, {1, 2, 3, 4})});
  fs::resize_file(folder_.path() / "t.safetensors", 10);
  std::vector<float> out(4);
  const Status read = checkpoint->ReadRows(*checkpoint->Find("m"), {0, 1, 0, 4}, out);
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code, ErrorCode::kFileChanged);
}

TEST(MicroCheckpointTest, HoldsTheTensorsAndParametersOfItsIndex) {
  const Result<std::unique_ptr<Checkpoint>> checkpoint = OpenSafetensorsCheckpoint(TASKPRESS_TEST_DATA "/micro-e4b");
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  int64_t parameters = 0;
  for (const CheckpointTensor& tensor : (*checkpoint)->tensors()) {
    EXPECT_EQ(tensor.type, DType::kBF16);
    parameters += NumElements(tensor.shape).value_or(0);
  }
  EXPECT_EQ((*checkpoint)->tensors().size(), 998U);
  EXPECT_EQ(parameters, 7'777'848);
  const CheckpointTensor* embedding = (*checkpoint)->Find("model.language_model.embed_tokens.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_THAT(embedding->shape, ElementsAre(2304, 128));
  // Rows beyond the text vocabulary are copies of row 0.
  std::vector<float> first(128);
  std::vector<float> last(128);
  ASSERT_TRUE((*checkpoint)->ReadRows(*embedding, {0, 1, 0, 128}, first));
  ASSERT_TRUE((*checkpoint)->ReadRows(*embedding, {2303, 1, 0, 128}, last));
  EXPECT_EQ(first, last);
}

TEST(MicroCheckpointTest, ReadsTheSameFromSeveralThreads) {
  const Result<std::unique_ptr<Checkpoint>> checkpoint = OpenSafetensorsCheckpoint(TASKPRESS_TEST_DATA "/micro-e4b");
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  const std::vector<float> expected = Read(**checkpoint, "model.language_model.embed_tokens_per_layer.weight");
  std::atomic<int> different = 0;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back(
        [&] { different += Read(**checkpoint, "model.language_model.embed_tokens_per_layer.weight") != expected ? 1 : 0; });
  }
  threads.clear();
  EXPECT_EQ(different, 0);
}

}  // namespace
}  // namespace taskpress
