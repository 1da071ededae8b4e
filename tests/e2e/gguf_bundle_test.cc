// A GGUF file of the micro checkpoint becomes the same models, byte for byte, as the folder it was made from.
#include <gtest/gtest.h>

#include "tests/e2e/micro_bundles.h"
#include "tests/testing/raw_files.h"
#include "tests/testing/raw_gguf.h"

namespace taskpress::testing {
namespace {

std::string SectionBytes(const Bundle& bundle, SectionKind kind) {
  const Section* section = bundle.Find(kind);
  if (section == nullptr) return "";
  std::vector<std::byte> scratch;
  return std::string(AsText(Must(ViewOrRead(*section->bytes, scratch))));
}

class GgufBundleTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GgufBundleTest, ModelsEqualThoseOfTheFolder) {
  const TempFolder folder;
  const std::filesystem::path gguf = folder.Write("micro.gguf", GgufOfGemma3n(oracle::MicroCheckpoint(), /*pad_tables=*/true).Bytes());
  PrepareOptions options{.recipe = Must(RecipeFromName(GetParam()))};
  options.model.context = 128;
  options.model.prefill_lengths = {8, 32};
  const auto write = [&](const std::filesystem::path& from, const char* name) {
    const std::filesystem::path out = folder.path() / name;
    Must(WriteBundles(Must(PrepareModel(from, options)), std::vector{out}, {.work = {.threads = 2}}));
    return Must(ReadBundle(out));
  };
  const Bundle ours = write(gguf, "gguf.litertlm");
  const Bundle theirs = write(oracle::MicroCheckpoint(), "folder.litertlm");
  for (const SectionKind kind : {SectionKind::kEmbedder, SectionKind::kPerLayerEmbedder, SectionKind::kPrefillDecode}) {
    const std::string bytes = SectionBytes(ours, kind);
    EXPECT_FALSE(bytes.empty());
    EXPECT_TRUE(bytes == SectionBytes(theirs, kind)) << InfoOf(kind).name;
  }
}

INSTANTIATE_TEST_SUITE_P(Recipes, GgufBundleTest, ::testing::Values("f32", "dynamic_int4"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace taskpress::testing
