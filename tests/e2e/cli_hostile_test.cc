// Damaged and dishonest input through the real program: refused with a status that says so and a message that names the place, and nothing
// is left behind. In the sanitizer build a wild read would end the program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/e2e/command_line.h"

namespace taskpress::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr const char* kShard1 = "model-00001-of-00002.safetensors";
constexpr const char* kShard2 = "model-00002-of-00002.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// --- bundles ----------------------------------------------------------------------------------------------------------------------------

class HostileBundleTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    ASSERT_EQ(Taskpress({"convert", Micro(), "-o", bundle_.string(), "--context", "64", "--prefill", "8"}).status, 0);
  }
  // What each verb that opens a bundle makes of it.
  static Finished Open(const fs::path& bundle, size_t verb) {
    switch (verb % 3) {
      case 0:
        return Taskpress({"run", bundle.string(), "--tokens", "2,5", "-n", "1", "-t", "1"});
      case 1:
        return Taskpress({"inspect", bundle.string()});
      default:
        return Taskpress({"verify", bundle.string(), "-t", "1"});
    }
  }
  TempFolder folder_;
  fs::path bundle_ = folder_.path() / (std::string("micro") + GetParam());
};

TEST_P(HostileBundleTest, IsRefusedWhereverItIsCut) {
  constexpr size_t kCuts = 100;
  constexpr size_t kVerbsPerCut = TASKPRESS_SANITIZED ? 1 : 3;  // starting a program with sanitizers takes long; each verb gets its share
  const uint64_t size = fs::file_size(bundle_);
  for (size_t cut = 0; cut < kCuts; ++cut) {
    fs::resize_file(bundle_, cut == 0 ? size - 1 : size * (kCuts - 1 - cut) / (kCuts - 1));  // from the end to nothing, in place
    for (size_t verb = 0; verb < kVerbsPerCut; ++verb) {
      const Finished finished = Open(bundle_, cut + verb);
      ASSERT_THAT(finished.status, AnyOf(5, 6))
          << "cut to " << fs::file_size(bundle_) << " of " << size << ", verb " << (cut + verb) % 3 << "\n"
          << finished.err;
      EXPECT_THAT(finished.err, HasSubstr(bundle_.filename().string()));
    }
  }
}

// Bytes of the framing and the FlatBuffer roots changed at random: any answer but a crash. A .litertlm has no checksum, so some changes
// pass unnoticed.
TEST_P(HostileBundleTest, AChangedByteIsNoCrash) {
  const std::string honest = ReadFileBytes(bundle_);
  uint64_t state = 1;
  const auto next = [&state](uint64_t below) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (state >> 33U) % below;
  };
  for (size_t i = 0; i < 60; ++i) {
    std::string bytes = honest;
    const uint64_t from = i % 2 == 0 ? bytes.size() - 65536 : 0;
    for (int change = 0; change < 4; ++change) bytes[from + next(65536)] = static_cast<char>(next(256));
    folder_.Write(bundle_.filename(), bytes);
    const Finished finished = Open(bundle_, i);
    EXPECT_LE(finished.status, 8) << "change " << i << "\n" << finished.err;
  }
}

INSTANTIATE_TEST_SUITE_P(Containers, HostileBundleTest, ::testing::Values(".task", ".litertlm"),
                         [](const auto& container) { return std::string(container.param).substr(1); });

TEST(ForeignFileTest, IsNamedForWhatItIs) {
  const TempFolder folder;
  const std::pair<std::string, std::string> files[] = {{"", "empty"},
                                                       {"GGUF....", "GGUF"},
                                                       {"<!DOCTYPE html><html>", "web page"},
                                                       {std::string(4096, '\0'), "zero"},
                                                       {"version https://git-lfs.github.com/spec/v1\n", "LFS"}};
  for (const auto& [bytes, word] : files) {
    const Finished finished = Taskpress({"inspect", folder.Write("a.task", bytes).string()});
    EXPECT_EQ(finished.status, 5) << finished.err;
    EXPECT_THAT(finished.err, HasSubstr(word));
  }
}

// A weight that became NaN after the bundle was made, where no checksum notices.
TEST(DamagedWeightTest, ShowsInTheNumbersAndIsRefused) {
  const TempFolder folder;
  const std::string bundle = (folder.path() / "a.litertlm").string();
  ASSERT_EQ(Taskpress({"convert", Micro(), "-o", bundle, "--quant", "f32", "--context", "64"}).status, 0);
  std::string bytes = ReadFileBytes(bundle);
  const nlohmann::json layout = TaskpressJson({"inspect", bundle});
  uint64_t offset = 0;
  for (const nlohmann::json& section : layout["sections"]) {
    if (section["kind"] == "prefill_decode") offset = section["offset"].get<uint64_t>() + section["bytes"].get<uint64_t>();
  }
  for (size_t i = 0; i < 4096; ++i) bytes[offset - 1 - i] = '\xff';  // the last matrix
  folder.Write("a.litertlm", bytes);
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{{"run", bundle, "--tokens", "2,5"},
                                                                                         {"score", bundle, "--tokens", "2,5"},
                                                                                         {"compare", bundle, Micro(), "--tokens", "2,5"},
                                                                                         {"verify", bundle}}) {
    const Finished finished = Taskpress(arguments);
    EXPECT_EQ(finished.status, 5) << arguments[0] << finished.out << finished.err;
    EXPECT_THAT(finished.err, HasSubstr("TP-2007")) << arguments[0];
  }
}

// --- checkpoints ------------------------------------------------------------------------------------------------------------------------

struct Damage {
  std::string name;
  std::function<void(const fs::path&)> apply;
  int status;
  std::vector<std::string> words;  // the message has all of them
  std::vector<std::string> options = {};
};

void Replace(const fs::path& file, const std::string& from, const std::string& to) {
  std::string bytes = ReadFileBytes(file);
  const size_t at = bytes.find(from);
  ASSERT_NE(at, std::string::npos) << file << " " << from;
  std::ofstream(file, std::ios::binary) << bytes.replace(at, from.size(), to);
}

void ChangeJson(const fs::path& file, const std::function<void(nlohmann::json&)>& change) {
  nlohmann::json json = nlohmann::json::parse(ReadFileBytes(file));
  change(json);
  std::ofstream(file) << json.dump();
}

void Overwrite(const fs::path& file, std::string_view text) { std::ofstream(file, std::ios::binary) << text; }

// bf16 NaN in place of a tensor's first value.
void PutNan(const fs::path& checkpoint, const std::string& tensor) {
  for (const char* shard : {kShard1, kShard2}) {
    std::string bytes = ReadFileBytes(checkpoint / shard);
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), sizeof(header));
    const nlohmann::json names = nlohmann::json::parse(bytes.substr(8, header));
    if (!names.contains(tensor)) continue;
    bytes.replace(8 + header + names[tensor]["data_offsets"][0].get<uint64_t>() + 2, 2, RawBytes<uint16_t>({0x7FC0}));
    Overwrite(checkpoint / shard, bytes);
    return;
  }
  FAIL() << tensor;
}

// A third shard that holds lm_head.weight: the table itself, or something else.
void AddHead(const fs::path& checkpoint, bool equal) {
  const auto stored = oracle::TrustingSafetensors::Open(oracle::MicroCheckpoint());
  const oracle::StoredTensor& table = stored.Get("model.language_model.embed_tokens.weight");
  RawTensor head{.name = "lm_head.weight", .dtype = table.dtype, .shape = table.shape, .bytes = {}};
  head.bytes.assign(reinterpret_cast<const char*>(table.bytes.data()), table.bytes.size());
  if (!equal) head.bytes.back() = static_cast<char>(head.bytes.back() ^ 1);
  Overwrite(checkpoint / "head.safetensors", HonestSafetensors(std::span(&head, 1)));
  ChangeJson(checkpoint / kIndex, [](nlohmann::json& index) { index["weight_map"]["lm_head.weight"] = "head.safetensors"; });
}

const std::string kUpProjection = "model.language_model.layers.7.mlp.up_proj.weight";
const std::string kNorm = "model.language_model.layers.3.input_layernorm.weight";

std::vector<Damage> Damages() {
  const auto config = [](const std::function<void(nlohmann::json&)>& change) {
    return [change](const fs::path& folder) { ChangeJson(folder / "config.json", change); };
  };
  const auto overwrite = [](const char* file, const char* text) {
    return [file, text](const fs::path& folder) { Overwrite(folder / file, text); };
  };
  const auto remove = [](std::vector<const char*> files) {
    return [files](const fs::path& folder) {
      for (const char* file : files) fs::remove(folder / file);
    };
  };
  const auto cut = [](const char* file, uint64_t divisor) {
    return [file, divisor](const fs::path& folder) { fs::resize_file(folder / file, fs::file_size(folder / file) / divisor); };
  };
  return {
      {"ConfigIsNoJson", overwrite("config.json", "{\"text_config\": "), 5, {"config.json", "TP-1011"}},
      {"ConfigMissing", remove({"config.json"}), 2, {"config.json", "TP-1001"}},
      {"ConfigLacksAField",
       config([](nlohmann::json& json) { json["text_config"].erase("hidden_size"); }),
       5,
       {"config.json", "hidden_size"}},
      {"ConfigAbsurd",
       config([](nlohmann::json& json) { json["text_config"]["num_hidden_layers"] = 1000000000; }),
       5,
       {"num_hidden_layers"}},
      {"ConfigOtherModel", config([](nlohmann::json& json) { json["model_type"] = "llama"; }), 6, {"config.json", "llama", "gemma3n"}},
      {"ConfigOtherWidth",
       config([](nlohmann::json& json) { json["text_config"]["hidden_size"] = 64; }),
       5,
       {"TP-1204", "embed_tokens.weight", "expected [2304,64]"}},
      {"ConfigMoreLayers",
       config([](nlohmann::json& json) {
         nlohmann::json& text = json["text_config"];
         text["num_hidden_layers"] = 16;
         for (const char* list : {"layer_types", "activation_sparsity_pattern", "intermediate_size"}) {
           if (text.contains(list) && text[list].is_array()) text[list].push_back(text[list].back());
         }
       }),
       5,
       {"TP-1204", "missing", "layers.15."}},
      {"ShardMissing", remove({kShard2}), 5, {kShard2, "missing"}},
      {"ShardCut", cut(kShard1, 2), 5, {kShard1, "TP-1103"}},
      {"ShardCutInItsHeader", cut(kShard1, 1000), 5, {kShard1}},
      {"ShardIsALfsPointer",
       overwrite(kShard1, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7928856\n"),
       5,
       {kShard1, "TP-1009", "git lfs pull"}},
      {"ShardIsAWebPage", overwrite(kShard2, "<!DOCTYPE html><html><body>Sign in</body></html>"), 5, {kShard2, "TP-1009"}},
      {"IndexIsNoJson", overwrite(kIndex, "not json"), 5, {kIndex}},
      {"IndexLeavesTheFolder",
       [](const fs::path& folder) { Replace(folder / kIndex, kShard1, "../" + std::string(kShard1)); },
       5,
       {kIndex, "TP-1107"}},
      {"NoWeights", remove({kIndex, kShard1, kShard2}), 2, {"TP-1106", "model.safetensors"}},
      {"OnlyPickle",
       [](const fs::path& folder) {
         for (const char* file : {kIndex, kShard1, kShard2}) fs::remove(folder / file);
         Overwrite(folder / "pytorch_model.bin", "PK");
       },
       6,
       {"pytorch_model.bin", "safetensors"}},
      {"NanInAMatrix", [](const fs::path& folder) { PutNan(folder, kUpProjection); }, 5, {"layers.7.mlp.up_proj.weight"}},
      {"NanInAFloatMatrix",
       [](const fs::path& folder) { PutNan(folder, kUpProjection); },
       5,
       {"layers.7.mlp.up_proj.weight"},
       {"--quant", "f32"}},
      {"NanInANorm", [](const fs::path& folder) { PutNan(folder, kNorm); }, 5, {"layers.3.input_layernorm.weight", "TP-1207"}},
      {"WrongShape",
       [](const fs::path& folder) {
         for (const char* shard : {kShard1, kShard2}) {
           const std::string entry = "\"" + kUpProjection + "\":{\"dtype\":\"BF16\",\"shape\":";
           if (ReadFileBytes(folder / shard).find(entry) != std::string::npos)
             Replace(folder / shard, entry + "[512,128]", entry + "[128,512]");
         }
       },
       5,
       {"TP-1204", "layers.7.mlp.up_proj.weight", "[128,512]", "[512,128]"}},
      {"UnknownTensor",
       [](const fs::path& folder) {
         const std::string other = "model.language_model.layers.7.mlp.up_prok.weight";
         Replace(folder / kIndex, "\"" + kUpProjection + "\"", "\"" + other + "\"");
         for (const char* shard : {kShard1, kShard2}) {
           if (ReadFileBytes(folder / shard).find(kUpProjection) != std::string::npos) Replace(folder / shard, kUpProjection, other);
         }
       },
       5,
       {"TP-1204", "unknown", "up_prok"}},
      {"AnotherHead", [](const fs::path& folder) { AddHead(folder, false); }, 6, {"TP-1206", "lm_head.weight", "embed_tokens.weight"}},
      {"TokenizerMissing", remove({"tokenizer.model", "tokenizer.json"}), 2, {"TP-1704", "tokenizer.model"}},
      {"TokenizerCut", cut("tokenizer.model", 2), 5, {"tokenizer.model"}},
      {"TokenizerEmpty", overwrite("tokenizer.model", ""), 5, {"tokenizer.model"}},
      {"TokenizerJsonCut", cut("tokenizer.json", 2), 5, {"tokenizer.json"}},
      {"StopTokenIsAWord",
       [](const fs::path& folder) {
         ChangeJson(folder / "generation_config.json", [](nlohmann::json& json) { json["eos_token_id"] = {1, 282}; });
       },
       5,
       {"TP-1705", "282"}},
      {"StopTokenOutside",
       [](const fs::path& folder) {
         ChangeJson(folder / "generation_config.json", [](nlohmann::json& json) { json["eos_token_id"] = 99999; });
       },
       2,
       {"TP-1707", "99999"}},
      {"TemplateIsNotUnderstood", overwrite("chat_template.jinja", "{{ messages | frobnicate }}"), 6, {"TP-1706"}},
  };
}

class HostileCheckpointTest : public ::testing::TestWithParam<Damage> {};

TEST_P(HostileCheckpointTest, IsRefusedByNameAndLeavesNothing) {
  const TempFolder folder;
  const fs::path checkpoint = CopyMicro(folder, "checkpoint");
  GetParam().apply(checkpoint);
  fs::create_directory(folder.path() / "out");
  std::vector<std::string> arguments = {"convert", checkpoint.string(), "-o", (folder.path() / "out/a.task").string(), "--context", "64",
                                        "--json"};
  arguments.insert(arguments.end(), GetParam().options.begin(), GetParam().options.end());
  const Finished finished = Taskpress(arguments);
  EXPECT_EQ(finished.status, GetParam().status) << finished.err;
  for (const std::string& word : GetParam().words) EXPECT_THAT(finished.err, HasSubstr(word));
  EXPECT_TRUE(NamesIn(folder.path() / "out").empty());
  const nlohmann::json document = nlohmann::json::parse(finished.out);
  EXPECT_EQ(document["schema"], "taskpress/error/1");
  EXPECT_NE(document["advice"], "");
}

INSTANTIATE_TEST_SUITE_P(Damages, HostileCheckpointTest, ::testing::ValuesIn(Damages()),
                         [](const auto& damage) { return damage.param.name; });

TEST(HonestCheckpointTest, MayStoreItsTableTwice) {
  const TempFolder folder;
  const fs::path checkpoint = CopyMicro(folder);
  AddHead(checkpoint, true);
  const Finished finished = Taskpress({"convert", checkpoint.string(), "-o", (folder.path() / "a.task").string(), "--context", "64"});
  EXPECT_EQ(finished.status, 0) << finished.err;
}

}  // namespace
}  // namespace taskpress::testing
