#include "converter/lock_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "quantizer/parallel_rows.h"
#include "schema/base/hash.h"
#include "schema/base/output_file.h"
#include "schema/json.h"

namespace taskpress {
namespace {

constexpr std::string_view kSchema = "taskpress/lock/1";

OrderedJson ToJson(const FileDigest& digest) { return {{"name", digest.name}, {"bytes", digest.bytes}, {"sha256", digest.sha256}}; }

Result<std::string> TextAt(const Json& json, const char* key) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  if (found == json.end() || !found->is_string()) return Fail(ErrorCode::kLockMismatch, "no text \"{}\"", key);
  return found->get<std::string>();
}

Result<FileDigest> DigestFrom(const Json& json) {
  FileDigest digest;
  digest.name = TRY(TextAt(json, "name"));
  digest.sha256 = TRY(TextAt(json, "sha256"));
  const auto bytes = json.find("bytes");
  if (bytes == json.end() || !bytes->is_number_unsigned()) return Fail(ErrorCode::kLockMismatch, "no count \"bytes\"");
  digest.bytes = bytes->get<uint64_t>();
  return digest;
}

Result<LockFile> LockFrom(const Json& json) {
  if (TRY(TextAt(json, "schema")) != kSchema) return Fail(ErrorCode::kLockMismatch, "not a lock file of this version");
  LockFile lock;
  lock.version = TRY(TextAt(json, "taskpress"));
  lock.recipe = TRY(TextAt(json, "recipe"));
  const auto output = json.find("output");
  const auto inputs = json.find("inputs");
  const auto options = json.find("options");
  if (output == json.end() || inputs == json.end() || !inputs->is_array() || options == json.end() || !options->is_object()) {
    return Fail(ErrorCode::kLockMismatch, "output, inputs or options are missing");
  }
  lock.output = TRY(DigestFrom(*output));
  for (const Json& input : *inputs) lock.inputs.push_back(TRY(DigestFrom(input)));
  for (const auto& [key, value] : options->items()) {
    if (!value.is_string()) return Fail(ErrorCode::kLockMismatch, "option \"{}\" is not a text", key);
    lock.options.emplace_back(key, value.get<std::string>());
  }
  return lock;
}

}  // namespace

std::filesystem::path LockPath(const std::filesystem::path& output) {
  std::filesystem::path path = output;
  path += ".lock.json";
  return path;
}

Status WriteLockFile(const std::filesystem::path& output, const LockFile& lock) {
  OrderedJson options = OrderedJson::object();
  for (const auto& [key, value] : lock.options) options[key] = value;
  OrderedJson inputs = OrderedJson::array();
  for (const FileDigest& input : lock.inputs) inputs.push_back(ToJson(input));
  const OrderedJson json{
      {"schema", kSchema},           {"taskpress", lock.version}, {"output", ToJson(lock.output)}, {"options", std::move(options)},
      {"inputs", std::move(inputs)}, {"recipe", lock.recipe}};
  return WriteWholeFile(LockPath(output), AsBytes(json.dump(2) + "\n"), {.replace = true});
}

Result<LockFile> ReadLockFile(const std::filesystem::path& path) {
  const Json json = TRY(ReadJsonFile(path));
  Result<LockFile> lock = LockFrom(json);
  if (!lock) return std::unexpected(WithContext(std::move(lock).error(), path.string()));
  return lock;
}

Status UpdateSums(const std::filesystem::path& output, const FileDigest& digest) {
  const std::filesystem::path path = output.parent_path() / "SHA256SUMS";
  std::string text;
  std::ifstream old(path);
  for (std::string line; std::getline(old, line);) {
    const bool same = line.size() > 66 && line.substr(66) == digest.name;  // 64 digits, a space, and a space or a star
    if (!same) text += line + "\n";
  }
  text += Format("{}  {}\n", digest.sha256, digest.name);
  return WriteWholeFile(path, AsBytes(text), {.replace = true});
}

Result<FileDigest> DigestFile(const std::filesystem::path& path, const std::atomic<bool>* stop) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return Fail(ErrorCode::kReadFailed, "{}: {}", path.string(), std::strerror(errno));
  posix_fadvise(descriptor, 0, 0, POSIX_FADV_SEQUENTIAL);
  FileDigest digest{.name = path.filename().string(), .bytes = 0, .sha256 = {}};
  Sha256 hash;
  std::vector<std::byte> block(1 << 20);
  ssize_t got = 0;
  Status stopped;
  while (stopped && (got = read(descriptor, block.data(), block.size())) != 0) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) break;
    hash.Update(ByteView(block).first(static_cast<size_t>(got)));
    digest.bytes += static_cast<uint64_t>(got);
    stopped = CheckNotStopped(stop);
  }
  const int reason = errno;
  close(descriptor);
  TRY(stopped);
  if (got < 0) return Fail(ErrorCode::kReadFailed, "{}: {}", path.string(), std::strerror(reason));
  digest.sha256 = hash.FinishHex();
  return digest;
}

Status CheckDigest(const FileDigest& expected, const FileDigest& found, const std::filesystem::path& path) {
  if (expected.bytes == found.bytes && expected.sha256 == found.sha256) return {};
  return Fail(ErrorCode::kLockMismatch, "{}: {} bytes, sha256 {}; expected {} bytes, sha256 {}", path.string(), found.bytes, found.sha256,
              expected.bytes, expected.sha256);
}

Status CheckLock(const LockFile& lock, const std::filesystem::path& bundle, std::span<const std::filesystem::path> folders,
                 const std::atomic<bool>* stop) {
  TRY(CheckDigest(lock.output, TRY(DigestFile(bundle, stop)), bundle));
  if (folders.empty()) return {};
  for (const FileDigest& input : lock.inputs) {
    std::error_code ignored;
    const auto folder =
        std::ranges::find_if(folders, [&](const auto& path) { return std::filesystem::is_regular_file(path / input.name, ignored); });
    if (folder == folders.end()) return Fail(ErrorCode::kLockMismatch, "{}: {} is not there", folders.front().string(), input.name);
    TRY(CheckDigest(input, TRY(DigestFile(*folder / input.name, stop)), *folder / input.name));
  }
  return {};
}

}  // namespace taskpress
