// What an unfinished conversion leaves beside its part files, so that the next one goes on where it stopped.
//
// Rules R1 to R5 of FORMATS.md. A journal never runs ahead of the disk: the part files are flushed before it is replaced.
#ifndef TASKPRESS_CONVERTER_JOURNAL_H_
#define TASKPRESS_CONVERTER_JOURNAL_H_

#include <cstdint>
#include <filesystem>
#include <future>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "converter/stream_writer.h"
#include "schema/base/error.h"
#include "schema/base/output_file.h"

namespace taskpress {

// A file the conversion reads, as it was when the conversion began.
struct InputState {
  std::string path;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;  // since the epoch
  bool operator==(const InputState&) const = default;
};
// kReadFailed when one of them cannot be looked at.
Result<std::vector<InputState>> LookAtInputs(std::span<const std::filesystem::path> paths);

struct Journal {
  std::string fingerprint;  // of everything that decides the bytes of the outputs, but for the inputs' values
  std::vector<InputState> inputs;
  StreamState state;
  std::vector<uint32_t> member_crcs;  // of every model member, once the part files are complete; empty before
  bool operator==(const Journal&) const = default;
};

// "<output>.part.journal"
std::filesystem::path JournalPath(const std::filesystem::path& output);
// Nothing when there is none. kCannotResume for one that is damaged.
Result<std::optional<Journal>> ReadJournal(const std::filesystem::path& path);
Status WriteJournal(const std::filesystem::path& path, const Journal& journal);
// kCannotResume naming what differs.
Status CheckSameConversion(const Journal& journal, const std::string& fingerprint, std::span<const InputState> inputs);

// Keeps a journal up to date from a thread of its own, never more than one snapshot at a time.
class JournalKeeper {
 public:
  // A snapshot is taken each time `period` more bytes are made.
  JournalKeeper(std::filesystem::path path, Journal journal, std::span<OutputFile> files, uint64_t period)
      : path_(std::move(path)), journal_(std::move(journal)), files_(files), period_(period), last_(journal_.state.bytes) {}

  // After each unit. The error of an earlier snapshot.
  Status Advance(const StreamState& state);
  // Waits for the snapshot under way, and takes another one. With member_crcs when everything is written.
  Status Finish(const StreamState& state, std::vector<uint32_t> member_crcs = {});

 private:
  Status Take();

  std::filesystem::path path_;
  Journal journal_;
  std::span<OutputFile> files_;
  uint64_t period_;
  uint64_t last_;
  std::future<Status> under_way_;
};

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_JOURNAL_H_
