// Bytes as a whole file and as a body: the checksums of a file keep mutations from getting further, so the body is tried alone.
#include <cmath>
#include <cstdint>
#include <span>

#include "schema/base/hash.h"
#include "schema/teacher_file.h"
#include "tests/fuzz/require.h"

namespace taskpress {
namespace {

constexpr int64_t kMaxVocab = 1024;  // what a row of this size costs nothing to try
constexpr int64_t kMaxTokens = 256;

void TryWindow(ByteView file, const TeacherInfo& info, const TeacherWindow& window) {
  if (info.vocab_size > kMaxVocab || window.tokens > kMaxTokens) return;
  Result<TeacherWindowReader> reader = TeacherWindowReader::Open(file, info, window);
  if (!reader) return;
  Require(std::ssize(reader->tokens()) == window.tokens);
  TeacherRow row;
  for (int64_t i = 0; i < window.tokens; ++i) {
    if (!reader->Read(row)) return;
    Require(std::ssize(row.ids) == info.top);
    for (const int32_t id : row.ids) Require(id >= 0 && id < info.vocab_size);
    for (const float value : row.log_probabilities) Require(std::isfinite(value) && value <= 0);
    Require(row.tail >= 0 && row.tail <= 1);
  }
}

}  // namespace
}  // namespace taskpress

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace taskpress;
  const ByteView bytes = std::as_bytes(std::span(data, size));
  if (const Result<TeacherIndex> index = ParseTeacher(bytes)) {
    uint64_t end = 40;
    for (const TeacherWindow& window : index->windows) {
      Require(window.offset == end && window.tokens >= 1);
      end += window.bytes;
      TryWindow(bytes, index->info, window);
    }
    Require(FormatTeacherIndex(*index).has_value());
  }
  for (const TeacherKind kind : {TeacherKind::kTop, TeacherKind::kFull}) {
    const TeacherInfo info{.teacher = "t", .version = "1", .kind = kind, .vocab_size = 4, .top = 2};
    for (const int64_t tokens : {1, 3}) {
      TryWindow(bytes, info, {.tokens = tokens, .offset = 0, .bytes = size, .crc32 = Crc32(0, bytes)});
    }
  }
  return 0;
}
