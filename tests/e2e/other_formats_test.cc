// The micro checkpoint as GGUF and as ONNX becomes the same models, byte for byte, as the folder it was made from.
#include <gtest/gtest.h>

#include "tests/e2e/micro_bundles.h"
#include "tests/testing/raw_files.h"
#include "tests/testing/raw_gguf.h"
#include "tests/testing/raw_onnx.h"

namespace taskpress::testing {
namespace {

namespace fs = std::filesystem;

fs::path WriteGguf(const TempFolder& folder) {
  return folder.Write("micro.gguf", GgufOfGemma3n(oracle::MicroCheckpoint(), /*pad_tables=*/true).Bytes());
}

// Weights in a second file, and beside them what an export leaves in the folder.
fs::path WriteOnnx(const TempFolder& folder, OnnxStyle style) {
  for (const char* name : {"config.json", "generation_config.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja"}) {
    if (fs::exists(oracle::MicroCheckpoint() / name)) fs::copy(oracle::MicroCheckpoint() / name, folder.path() / name);
  }
  onnx::ModelProto model = ExportOnnx(*Must(OpenSafetensorsCheckpoint(oracle::MicroCheckpoint())), style, /*bf16=*/true);
  folder.Write("model.onnx.data", MoveOutside(model, "model.onnx.data", 1024));
  return folder.Write("model.onnx", model.SerializeAsString());
}

struct Format {
  const char* name;
  fs::path (*write)(const TempFolder& folder);
};

class OtherFormatsTest : public ::testing::TestWithParam<Format> {};

std::string SectionBytes(const Bundle& bundle, SectionKind kind) {
  const Section* section = bundle.Find(kind);
  if (section == nullptr) return "";
  std::vector<std::byte> scratch;
  return std::string(AsText(Must(ViewOrRead(*section->bytes, scratch))));
}

TEST_P(OtherFormatsTest, ModelsEqualThoseOfTheFolder) {
  const TempFolder folder;
  const fs::path source = GetParam().write(folder);
  for (const char* recipe : {"f32", "dynamic_int4"}) {
    PrepareOptions options;
    options.recipe = Must(RecipeFromName(recipe));
    options.model.context = 128;
    options.model.prefill_lengths = {8, 32};
    const auto write = [&](const fs::path& from, const char* name) {
      const fs::path out = folder.path() / name;
      Must(WriteBundles(Must(PrepareModel(from, options)), std::vector{out}, {.work = {.threads = 2}, .replace = true}));
      return Must(ReadBundle(out));
    };
    const Bundle ours = write(source, "ours.litertlm");
    const Bundle theirs = write(oracle::MicroCheckpoint(), "folder.litertlm");
    for (const SectionKind kind : {SectionKind::kEmbedder, SectionKind::kPerLayerEmbedder, SectionKind::kPrefillDecode}) {
      const std::string bytes = SectionBytes(ours, kind);
      EXPECT_FALSE(bytes.empty());
      EXPECT_TRUE(bytes == SectionBytes(theirs, kind)) << recipe << " " << InfoOf(kind).name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Formats, OtherFormatsTest,
    ::testing::Values(Format{"Gguf", WriteGguf},
                      Format{"OnnxOfTorchScript", [](const TempFolder& folder) { return WriteOnnx(folder, OnnxStyle::kTorchScript); }},
                      Format{"OnnxOfDynamo", [](const TempFolder& folder) { return WriteOnnx(folder, OnnxStyle::kDynamo); }}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace taskpress::testing
