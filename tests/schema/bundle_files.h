// Small bundles for tests: sections with tell-tale contents, a folder to write them to, and matchers for errors.
#ifndef TASKPRESS_TESTS_SCHEMA_BUNDLE_FILES_H_
#define TASKPRESS_TESTS_SCHEMA_BUNDLE_FILES_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "schema/base/error.h"
#include "schema/bundle.h"

namespace taskpress {

// Result<T> or Status that failed with this code and with this text in its message.
MATCHER_P2(Fails, code, text, Format("fails with {} and says \"{}\"", InfoOf(code).name, text)) {
  if (arg.has_value()) {
    *result_listener << "which succeeded";
    return false;
  }
  *result_listener << "which failed with " << InfoOf(arg.error().code).name << ": " << arg.error().message;
  return arg.error().code == code && arg.error().message.find(text) != std::string::npos;
}

MATCHER(Succeeds, "succeeds") {
  if (arg.has_value()) return true;
  *result_listener << "which failed with " << InfoOf(arg.error().code).name << ": " << arg.error().message;
  return false;
}

class BundleFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const ::testing::TestInfo& info = *::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(::testing::TempDir()) / Format("{}.{}", info.test_suite_name(), info.name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

inline std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline SharedBytes InMemory(std::string_view bytes) { return MakeMemorySource(AsBytes(bytes)); }

inline std::string TextOf(const Section& section) { return std::string(AsText(section.bytes->view())); }

inline SectionToWrite TextSection(SectionKind kind, std::string_view text, std::string name = "") {
  SectionToWrite section = SectionFromSource(kind, InMemory(text));
  section.name = std::move(name);
  return section;
}

// The five sections of a text bundle in the order a converter writes them; none has a round size.
inline std::vector<SectionToWrite> SmallSections() {
  return {TextSection(SectionKind::kMetadata, "start and stop"), TextSection(SectionKind::kTokenizer, std::string(131, 't')),
          TextSection(SectionKind::kEmbedder, std::string(77, 'e')), TextSection(SectionKind::kPerLayerEmbedder, std::string(1, 'p')),
          TextSection(SectionKind::kPrefillDecode, std::string(301, 'd'))};
}

// Writes and commits `path`; the container follows from its extension.
inline Status WriteBundleTo(const std::filesystem::path& path, std::span<const SectionToWrite> sections) {
  const std::optional<Container> container = ContainerFromPath(path);
  if (!container) return Fail(ErrorCode::kUsage, "{}: not the name of a bundle", path.string());
  const BundleLayout layout = TRY(PlanBundle(*container, sections));
  OutputFile file = TRY(OutputFile::Create(path, layout.file_size, {.replace = true}));
  TRY(WriteBundle(*container, sections, file));
  return file.Commit();
}

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_SCHEMA_BUNDLE_FILES_H_
