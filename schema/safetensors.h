// One safetensors file: 8-byte header length, JSON header, tensor bytes. Reader and writer are neighbours; rules are numbered in
// FORMATS.md.
#ifndef TASKPRESS_SCHEMA_SAFETENSORS_H_
#define TASKPRESS_SCHEMA_SAFETENSORS_H_

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/base/mapped_file.h"
#include "schema/byte_source.h"
#include "schema/tensor_view.h"

namespace taskpress {

class SafetensorsFile {
 public:
  static Result<SafetensorsFile> Open(const std::filesystem::path& path);

  // Sorted by name. Views live as long as the file's mapping.
  [[nodiscard]] std::span<const TensorView> tensors() const { return tensors_; }
  [[nodiscard]] const TensorView* Find(std::string_view name) const;
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
  [[nodiscard]] const std::shared_ptr<const MappedFile>& file() const { return file_; }

 private:
  SafetensorsFile() = default;
  std::shared_ptr<const MappedFile> file_;
  std::vector<TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Header checks alone, on bytes in memory; what Open() and the fuzzer call.
Result<std::vector<TensorView>> ParseSafetensors(ByteView file, std::map<std::string, std::string>* metadata);

// A tensor to be written; bytes may be produced on demand.
struct SafetensorsEntry {
  std::string name;
  DType type = DType::kF32;
  Shape shape;
  SharedBytes bytes;
};

// Writes the entries in the given order, streamed in bounded memory, with the guarantees of OutputFile. Deterministic.
Status WriteSafetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> entries,
                        const std::map<std::string, std::string>& metadata = {}, bool replace = false);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_SAFETENSORS_H_
