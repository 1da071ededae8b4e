#include "tests/testing/raw_files.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <format>
#include <fstream>
#include <iterator>

namespace taskpress {

TempFolder::TempFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "taskpress-test-XXXXXX").string();
  EXPECT_NE(mkdtemp(name.data()), nullptr) << name;
  path_ = std::filesystem::canonical(name);
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path TempFolder::Write(const std::filesystem::path& name, std::string_view bytes) const {
  const std::filesystem::path file = path_ / name;
  std::filesystem::create_directories(file.parent_path());
  std::ofstream out(file, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  EXPECT_TRUE(out.flush().good()) << file;
  return file;
}

std::string ReadFileBytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string RawSafetensors(std::string_view header, std::string_view data, std::optional<uint64_t> header_size) {
  const uint64_t length = header_size.value_or(header.size());
  return RawBytes({length}) + std::string(header) + std::string(data);
}

std::string HonestSafetensors(std::span<const RawTensor> tensors) {
  std::string header = "{";
  std::string data;
  for (const RawTensor& tensor : tensors) {
    std::string shape;
    for (const int64_t dimension : tensor.shape) shape += std::format("{}{}", shape.empty() ? "" : ",", dimension);
    header += std::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", header.size() > 1 ? "," : "", tensor.name,
                          tensor.dtype, shape, data.size(), data.size() + tensor.bytes.size());
    data += tensor.bytes;
  }
  return RawSafetensors(header + "}", data);
}

}  // namespace taskpress
