// What a reference model predicts for a text, kept in a file so that other models can be compared with it without running it again. Rules
// T1 to T12 of FORMATS.md.
#ifndef TASKPRESS_SCHEMA_TEACHER_FILE_H_
#define TASKPRESS_SCHEMA_TEACHER_FILE_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "schema/base/error.h"
#include "schema/base/mapped_file.h"
#include "schema/base/output_file.h"
#include "schema/zstd_frame.h"

namespace taskpress {

enum class TeacherKind : uint8_t {
  kTop,   // the most likely tokens, and how likely the others are together
  kFull,  // every token
};

struct TeacherInfo {
  std::string teacher;  // which model it was
  std::string version;  // of the program that ran it
  TeacherKind kind = TeacherKind::kTop;
  int64_t vocab_size = 0;
  int64_t top = 0;  // tokens named per position, the most likely first
  bool operator==(const TeacherInfo&) const = default;
};

// A text that begins with an empty context. Positions are its tokens: each has a distribution of the token that follows.
struct TeacherWindow {
  int64_t tokens = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;  // compressed
  uint32_t crc32 = 0;
  bool operator==(const TeacherWindow&) const = default;
};

struct TeacherIndex {
  TeacherInfo info;
  std::vector<TeacherWindow> windows;
};

// The distribution behind one position.
struct TeacherRow {
  float next = 0;                        // log-probability of the token that does follow; 0 at the last position
  float tail = 0;                        // probability of all tokens that are not in `ids`; of kFull 0
  std::vector<int32_t> ids;              // [top] most likely first
  std::vector<float> log_probabilities;  // kTop: [top] of ids; kFull: [vocab_size] of every token, numbers of float16
};

// T1 to T6 on bytes in memory; what Open() and the fuzzer call.
Result<TeacherIndex> ParseTeacher(ByteView file);

// T7 to T10, position by position. Memory: the tokens and one row.
class TeacherWindowReader {
 public:
  // `file`, the whole of it, must outlive the reader.
  static Result<TeacherWindowReader> Open(ByteView file, const TeacherInfo& info, const TeacherWindow& window);

  [[nodiscard]] std::span<const int32_t> tokens() const { return tokens_; }
  // The next position's; as many as there are tokens.
  Status Read(TeacherRow& row);

 private:
  TeacherWindowReader(ZstdFrameReader frame, const TeacherInfo& info, std::vector<int32_t> tokens)
      : frame_(std::move(frame)), info_(info), tokens_(std::move(tokens)) {}
  Status CheckRow(const TeacherRow& row) const;

  ZstdFrameReader frame_;
  TeacherInfo info_;
  std::vector<int32_t> tokens_;
  size_t position_ = 0;
  std::vector<uint16_t> halves_;
};

class TeacherFile {
 public:
  static Result<TeacherFile> Open(const std::filesystem::path& path);

  [[nodiscard]] const TeacherInfo& info() const { return index_.info; }
  [[nodiscard]] std::span<const TeacherWindow> windows() const { return index_.windows; }
  [[nodiscard]] std::string name() const { return file_->name(); }
  // `window` is one of windows(); the reader must not outlive this object.
  Result<TeacherWindowReader> OpenWindow(const TeacherWindow& window) const;

 private:
  TeacherFile() = default;
  std::shared_ptr<const MappedFile> file_;
  TeacherIndex index_;
};

// Window after window, streamed; the file has its name when all of it is on the disk, and not before.
class TeacherWriter {
 public:
  // As OutputFile::Create; kTeacherFile for what T3 and T4 refuse.
  static Result<TeacherWriter> Create(const std::filesystem::path& path, TeacherInfo info, bool replace = false);

  // A window of these tokens; AddRow() follows once for each.
  Status BeginWindow(std::span<const int32_t> tokens);
  Status AddRow(const TeacherRow& row);
  // Index, header, rename. Consumes the writer; every window must have its rows.
  Status Commit();

 private:
  TeacherWriter(OutputFile file, TeacherInfo info) : file_(std::move(file)), index_{.info = std::move(info), .windows = {}} {}

  OutputFile file_;
  TeacherIndex index_;
  uint64_t end_ = 0;  // of the last body
  std::optional<ZstdFrameWriter> frame_;
  int64_t rows_left_ = 0;
};

// Parts of the format that reader and writer share.
Result<std::string> FormatTeacherIndex(const TeacherIndex& index);
// What a body of so many tokens unpacks to, in bytes.
uint64_t TeacherBodyBytes(const TeacherInfo& info, int64_t tokens);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_TEACHER_FILE_H_
