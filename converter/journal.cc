#include "converter/journal.h"

#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "schema/json.h"

namespace taskpress {
namespace {

constexpr std::string_view kSchema = "taskpress/journal/1";

Result<uint64_t> CountAt(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number_unsigned()) return Fail(ErrorCode::kCannotResume, "\"{}\" is not a count", key);
  return found->get<uint64_t>();
}

Result<std::string> TextAt(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_string()) return Fail(ErrorCode::kCannotResume, "\"{}\" is not a text", key);
  return found->get<std::string>();
}

Result<Json> ListAt(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_array()) return Fail(ErrorCode::kCannotResume, "\"{}\" is not a list", key);
  return *found;
}

Result<std::vector<uint32_t>> CrcsAt(const Json& json, const char* key) {
  const Json list = TRY(ListAt(json, key));
  std::vector<uint32_t> crcs;
  for (const Json& crc : list) {
    if (!crc.is_number_unsigned() || crc.get<uint64_t>() > UINT32_MAX) {
      return Fail(ErrorCode::kCannotResume, "\"{}\" holds {}, which is no CRC-32", key, crc.dump());
    }
    crcs.push_back(crc.get<uint32_t>());
  }
  return crcs;
}

Result<Journal> Parse(const Json& json) {
  if (!json.is_object() || TRY(TextAt(json, "schema")) != kSchema) return Fail(ErrorCode::kCannotResume, "not a journal of this version");
  Journal journal;
  journal.fingerprint = TRY(TextAt(json, "fingerprint"));
  journal.state.units = TRY(CountAt(json, "units"));
  journal.state.bytes = TRY(CountAt(json, "bytes"));
  journal.state.crcs = TRY(CrcsAt(json, "crc32"));
  journal.member_crcs = TRY(CrcsAt(json, "member_crc32"));
  const Json inputs = TRY(ListAt(json, "inputs"));
  for (const Json& input : inputs) {
    InputState state;
    state.path = TRY(TextAt(input, "path"));
    state.bytes = TRY(CountAt(input, "bytes"));
    state.modified_ns = static_cast<int64_t>(TRY(CountAt(input, "modified_ns")));
    journal.inputs.push_back(std::move(state));
  }
  return journal;
}

}  // namespace

Result<std::vector<InputState>> LookAtInputs(std::span<const std::filesystem::path> paths) {
  std::vector<InputState> states;
  for (const std::filesystem::path& path : paths) {
    struct stat info{};
    if (stat(path.c_str(), &info) != 0) return Fail(ErrorCode::kReadFailed, "{}: {}", path.string(), std::strerror(errno));
    states.push_back({.path = path.string(),
                      .bytes = static_cast<uint64_t>(info.st_size),
                      .modified_ns = static_cast<int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec});
  }
  return states;
}

std::filesystem::path JournalPath(const std::filesystem::path& output) {
  std::filesystem::path path = PartPath(output);
  path += ".journal";
  return path;
}

Result<std::optional<Journal>> ReadJournal(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  Result<Json> json = ReadJsonFile(path);
  Result<Journal> journal = json ? Parse(*json) : Result<Journal>(std::unexpected(json.error()));
  if (journal) return *std::move(journal);
  return Fail(ErrorCode::kCannotResume, "{}: {}; remove it to start again", path.string(), journal.error().message);
}

Status WriteJournal(const std::filesystem::path& path, const Journal& journal) {
  OrderedJson inputs = OrderedJson::array();
  for (const InputState& input : journal.inputs) {
    inputs.push_back({{"path", input.path}, {"bytes", input.bytes}, {"modified_ns", static_cast<uint64_t>(input.modified_ns)}});
  }
  const OrderedJson json{{"schema", kSchema},
                         {"fingerprint", journal.fingerprint},
                         {"inputs", std::move(inputs)},
                         {"units", journal.state.units},
                         {"bytes", journal.state.bytes},
                         {"crc32", journal.state.crcs},
                         {"member_crc32", journal.member_crcs}};
  return WriteWholeFile(path, AsBytes(json.dump() + "\n"), {.replace = true});
}

Status CheckSameConversion(const Journal& journal, const std::string& fingerprint, std::span<const InputState> inputs) {
  for (size_t i = 0; i < std::min(inputs.size(), journal.inputs.size()); ++i) {
    const InputState& before = journal.inputs[i];
    if (before == inputs[i]) continue;
    return Fail(ErrorCode::kCannotResume, "input {} is not what it was: then {} of {} bytes, now {} bytes, modified {} s later",
                inputs[i].path, before.path, before.bytes, inputs[i].bytes,
                static_cast<double>(inputs[i].modified_ns - before.modified_ns) * 1e-9);
  }
  if (inputs.size() != journal.inputs.size()) {
    return Fail(ErrorCode::kCannotResume, "it read {} input files, this one reads {}", journal.inputs.size(), inputs.size());
  }
  if (journal.fingerprint != fingerprint) {
    return Fail(ErrorCode::kCannotResume, "it had other options, other outputs, or was started by another version");
  }
  return {};
}

Status JournalKeeper::Advance(const StreamState& state) {
  if (state.bytes < last_ + period_) return {};
  if (under_way_.valid()) {
    if (under_way_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return {};
    TRY(under_way_.get());
  }
  last_ = state.bytes;
  journal_.state = state;
  under_way_ = std::async(std::launch::async, [this] { return Take(); });
  return {};
}

Status JournalKeeper::Finish(const StreamState& state, std::vector<uint32_t> member_crcs) {
  if (under_way_.valid()) TRY(under_way_.get());
  journal_.state = state;
  journal_.member_crcs = std::move(member_crcs);
  return Take();
}

Status JournalKeeper::Take() {
  for (OutputFile& file : files_) TRY(file.Flush());
  return WriteJournal(path_, journal_);
}

}  // namespace taskpress
