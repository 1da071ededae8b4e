// Reads safetensors files for the reference model and for goldens: maps them, believes what their headers say, checks nothing.
//
// It exists so that the oracle shares no line with the reader it is an oracle for. Feed it only files of this repository or files
// that the checking reader accepted; a damaged file is undefined behaviour here. A missing file or name throws, which fails a test.
#ifndef TASKPRESS_TESTS_REFERENCE_TRUSTING_SAFETENSORS_H_
#define TASKPRESS_TESTS_REFERENCE_TRUSTING_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace taskpress::oracle {

// One tensor, seen as [rows, columns]: columns is the last dimension, rows everything before it.
struct StoredTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  [[nodiscard]] int64_t rows() const;
  [[nodiscard]] int64_t columns() const;
  // Columns [first, first + out.size()) of one row; BF16 or F32.
  void ReadRow(int64_t row, int64_t first, std::span<float> out) const;
  [[nodiscard]] std::vector<float> Floats() const;
  // I32 only.
  [[nodiscard]] std::vector<int32_t> Integers() const;
};

class TrustingSafetensors {
 public:
  // One file, or every *.safetensors file of a folder taken together.
  static TrustingSafetensors Open(const std::filesystem::path& file_or_folder);

  [[nodiscard]] bool Has(const std::string& name) const { return tensors_.contains(name); }
  [[nodiscard]] const StoredTensor& Get(const std::string& name) const;

 private:
  void Map(const std::filesystem::path& file);

  std::vector<std::shared_ptr<const std::byte>> mappings_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace taskpress::oracle

#endif  // TASKPRESS_TESTS_REFERENCE_TRUSTING_SAFETENSORS_H_
