// Files for tests of parsers: bytes put together by hand, honest or lying, and a folder to put them into.
#ifndef TASKPRESS_TESTS_TESTING_RAW_FILES_H_
#define TASKPRESS_TESTS_TESTING_RAW_FILES_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace taskpress {

// A new empty folder that is removed, with everything in it, at the end of the test.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // Writes a file, creating the folders its name needs, and returns its path.
  std::filesystem::path Write(const std::filesystem::path& name, std::string_view bytes) const;

 private:
  std::filesystem::path path_;
};

// The whole file; the test fails when it cannot be read.
std::string ReadFileBytes(const std::filesystem::path& path);

// A safetensors file with any header and any data. `header_size` lies about the header's length.
std::string RawSafetensors(std::string_view header, std::string_view data, std::optional<uint64_t> header_size = std::nullopt);

struct RawTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

// An honest safetensors file: offsets follow from the tensors' bytes. Written without the code under test.
std::string HonestSafetensors(std::span<const RawTensor> tensors);

// The bytes of a number or of several, as they lie in a file.
template <typename T>
std::string RawBytes(std::span<const T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}
template <typename T>
std::string RawBytes(std::initializer_list<T> values) {
  return RawBytes(std::span<const T>(values.begin(), values.size()));
}

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_TESTING_RAW_FILES_H_
