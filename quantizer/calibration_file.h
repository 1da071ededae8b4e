// Second moments of a model's inputs in a file, one body per site. Rules H1 to H13 of FORMATS.md.
#ifndef TASKPRESS_QUANTIZER_CALIBRATION_FILE_H_
#define TASKPRESS_QUANTIZER_CALIBRATION_FILE_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quantizer/second_moments.h"
#include "schema/base/error.h"
#include "schema/base/mapped_file.h"
#include "schema/base/output_file.h"
#include "schema/indexed_file.h"

namespace taskpress {

struct CalibrationInfo {
  std::string model;       // fingerprint of the checkpoint
  std::string token_hash;  // of the tokens that were run
  int64_t tokens = 0;
  std::string version;  // of the program that ran them
  bool operator==(const CalibrationInfo&) const = default;
};

// A layer's input, or one that several layers share.
struct CalibrationSite {
  std::string name;
  int64_t columns = 0;
  MomentKind kind = MomentKind::kFull;
  uint64_t offset = 0;
  uint64_t bytes = 0;  // compressed
  uint32_t crc32 = 0;
  bool operator==(const CalibrationSite&) const = default;
};

struct CalibrationIndex {
  CalibrationInfo info;
  std::vector<CalibrationSite> sites;
};

// H1 to H7 on bytes in memory; what Open() and the fuzzer call.
Result<CalibrationIndex> ParseCalibration(ByteView file);
// H8 to H10: one site of such a file, added to `into`, zeros of its columns and kind or what other files had. `into` is worth nothing after
// an error. Memory: `into`, and a row.
Status AddCalibrationSite(ByteView file, const CalibrationSite& site, SecondMoments& into);

class CalibrationFile {
 public:
  static Result<CalibrationFile> Open(const std::filesystem::path& path);

  [[nodiscard]] const CalibrationInfo& info() const { return index_.info; }
  [[nodiscard]] std::span<const CalibrationSite> sites() const { return index_.sites; }
  [[nodiscard]] const CalibrationSite* Find(std::string_view name) const;
  [[nodiscard]] const std::filesystem::path& path() const { return file_->path(); }
  // kCalibrationFile, or kFileChanged when the file became shorter meanwhile. `site` is one of sites().
  Result<SecondMoments> Read(const CalibrationSite& site) const;
  Status AddTo(const CalibrationSite& site, SecondMoments& into) const;

 private:
  CalibrationFile() = default;
  std::shared_ptr<const MappedFile> file_;
  CalibrationIndex index_;
};

struct CalibrationWriterOptions {
  bool replace = false;  // else an existing file under the name is an error
  bool resume = false;   // part file and journal outlive this object when it is not committed, and those of an earlier one are taken up
};

// Site after site, streamed; the file has its name when all of it is on the disk, and not before.
class CalibrationWriter {
 public:
  // As OutputFile::Create. With `resume`: kCannotResume when there is an unfinished file that is another calibration's or damaged; when
  // there is none, a new one is begun.
  static Result<CalibrationWriter> Create(const std::filesystem::path& path, CalibrationInfo info, CalibrationWriterOptions options = {});

  // What is stored already: sites that need not be computed again.
  [[nodiscard]] std::span<const CalibrationSite> sites() const { return index_.sites; }
  [[nodiscard]] bool Has(std::string_view name) const;
  // kQuantShape or kNotFinite for moments that CheckMoments refuses, kCalibrationFile for a name that H4 forbids. A site that is stored
  // already is not stored again.
  Status Add(const std::string& name, const SecondMoments& moments);
  // Index, header, rename. Consumes the writer.
  Status Commit();

 private:
  CalibrationWriter(OutputFile file, CalibrationIndex index, uint64_t end, bool resume)
      : file_(std::move(file)), index_(std::move(index)), end_(end), resume_(resume) {}

  OutputFile file_;
  CalibrationIndex index_;
  uint64_t end_ = 0;  // of the last body
  bool resume_ = false;
};

// H11: one file of all tokens. At least one input; `version` is the program's. kCalibrationMismatch naming what differs. Memory: one site.
Status MergeCalibrations(std::span<const std::filesystem::path> inputs, const std::filesystem::path& output, const std::string& version,
                         bool replace = false);

// Parts of the format that reader and writer share.
inline constexpr uint64_t kCalibrationHeaderBytes = kIndexedHeaderBytes;
// The header of a file whose index is `index`, at `offset`. [kCalibrationHeaderBytes]
std::vector<std::byte> FormatCalibrationHeader(uint64_t offset, std::string_view index);
// kCalibrationFile for strings that JSON cannot hold.
Result<std::string> FormatCalibrationIndex(const CalibrationIndex& index);
// H3 to H7, of bodies that end at `bodies_end`; without it, where the last one does (a journal).
Result<CalibrationIndex> ParseCalibrationIndex(ByteView json, std::optional<uint64_t> bodies_end);
// What a body unpacks to, in bytes.
uint64_t CalibrationBodyBytes(int64_t columns, MomentKind kind);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_CALIBRATION_FILE_H_
