// GGUF files put together by hand, honest or lying, without the code under test.
#ifndef TASKPRESS_TESTS_TESTING_RAW_GGUF_H_
#define TASKPRESS_TESTS_TESTING_RAW_GGUF_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace taskpress {

// A metadata value as it lies in the file: its type, then its bytes.
std::string GgufText(std::string_view text);
std::string GgufU32(uint32_t value);
std::string GgufF32(float value);
std::string GgufBool(bool value);
std::string GgufTexts(const std::vector<std::string>& texts);
std::string GgufFloats(const std::vector<float>& values);
std::string GgufInts(const std::vector<int32_t>& values);
std::string GgufBools(const std::vector<bool>& values);

struct RawGgufTensor {
  std::string name;
  std::vector<uint64_t> dimensions;  // as in the file: the innermost first
  uint32_t type = 0;                 // F32
  std::string bytes;
  std::optional<uint64_t> offset = {};  // a lie about where the data begin
};

struct RawGguf {
  std::vector<std::pair<std::string, std::string>> metadata;  // key, value with type
  std::vector<RawGgufTensor> tensors;
  // Lies.
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> tensor_count = {};
  std::optional<uint64_t> metadata_count = {};
  uint64_t alignment = 32;  // what the writer aligns to; general.alignment is the caller's

  [[nodiscard]] std::string Bytes() const;
};

// A Gemma 3n checkpoint (a folder with model.safetensors or an index, config.json and tokenizer.model) as llama.cpp's converter writes it:
// its names, norms as they are, AltUp projections stacked, small weights in float32 and the others as stored. `pad_tables`: newer
// converters fill embed_tokens_per_layer up with zero rows.
RawGguf GgufOfGemma3n(const std::filesystem::path& checkpoint, bool pad_tables);

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_TESTING_RAW_GGUF_H_
