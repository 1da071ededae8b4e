#include "runtime/weight_source.h"

#include <fcntl.h>
#include <hwy/targets.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "runtime/kernels/native/packed_matrix.h"
#include "runtime/kernels/native/sparse_columns.h"
#include "runtime/weight_cache_layout.h"
#include "runtime/xnnpack_kernels.h"
#include "schema/base/checked_math.h"
#include "schema/base/hash.h"
#include "schema/base/version.h"

namespace taskpress {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kTick = kSecond / 20;       // kernels count in steps of up to 0.01 s
constexpr int64_t kCoarseTick = 2 * kSecond;  // FAT
constexpr uint64_t kSampleBytes = 4096;
constexpr uint64_t kSamples = 64;

int64_t Nanoseconds(const timespec& time) { return int64_t{time.tv_sec} * kSecond + time.tv_nsec; }

Result<FileIdentity> IdentityOf(const std::filesystem::path& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0) return Fail(ErrorCode::kFileNotFound, "{}: is not there", path.string());
  return FileIdentity{.inode = info.st_ino,
                      .bytes = static_cast<uint64_t>(info.st_size),
                      .modified_ns = Nanoseconds(info.st_mtim),
                      .changed_ns = Nanoseconds(info.st_ctim)};
}

// What XNNPACK and Highway choose their kernels by; the clock's speed and its like are left out.
std::string CpuDescription() {
  static constexpr std::array<std::string_view, 10> kKeys = {"vendor_id",       "cpu family",       "model",       "flags",    "Features",
                                                             "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "isa"};
  std::set<std::string> lines;
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::string_view key = std::string_view(line).substr(0, line.find_first_of("\t:"));
    if (std::ranges::find(kKeys, key) != kKeys.end()) lines.insert(line);
  }
  std::string all = Format("highway {}\n", hwy::SupportedTargets());
  for (const std::string& line : lines) all += line + "\n";
  return all;
}

// Blocks spread evenly over the file. Where a file system does not keep the time of changes, they tell one model from another.
void AddSamples(Sha256& hash, ByteView file) {
  for (uint64_t i = 0; i < kSamples; ++i) {
    const uint64_t at = file.size() / kSamples * i;
    hash.Update(file.subspan(at, std::min(kSampleBytes, file.size() - at)));
  }
  hash.Update(file.last(std::min<uint64_t>(kSampleBytes, file.size())));
}

WeightCacheFingerprint FromHex(std::string_view hex) {
  WeightCacheFingerprint bytes;
  for (size_t i = 0; i < bytes.size(); ++i) {
    unsigned value = 0;
    std::from_chars(hex.data() + 2 * i, hex.data() + 2 * i + 2, value, 16);
    bytes[i] = static_cast<std::byte>(value);
  }
  return bytes;
}

}  // namespace

Result<FileIdentity> SettledIdentityOf(const std::filesystem::path& path) {
  constexpr int kAttempts = 3;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const FileIdentity identity = TRY(IdentityOf(path));
    const int64_t now = std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
    if (identity.changed_ns > now + kTick) return Fail(ErrorCode::kFileChanged, "{}: was changed in the future", path.string());
    const int64_t settled = identity.changed_ns + (identity.changed_ns % kSecond == 0 ? kCoarseTick : kTick);
    if (settled < now) return identity;
    std::this_thread::sleep_for(std::chrono::nanoseconds(settled - now + 1));
  }
  return Fail(ErrorCode::kFileChanged, "{}: keeps changing", path.string());
}

std::optional<WeightSource> WeightSourceOf(const Bundle& bundle, const FileIdentity& identity) {
  if (bundle.sections.empty()) return std::nullopt;
  const Section& section = bundle.sections.front();
  const ByteView view = section.bytes->view();
  if (view.empty() || identity.bytes != bundle.file_size) return std::nullopt;
  return WeightSource{.path = bundle.path, .identity = identity, .mapping = {view.data() - section.offset, bundle.file_size}};
}

Status CheckSource(const WeightSource& source) {
  if (TRY(IdentityOf(source.path)) == source.identity) return {};
  return Fail(ErrorCode::kFileChanged, "{}: changed since it was opened", source.path.string());
}

Result<WeightCacheFingerprint> FingerprintOf(const WeightSource& source) {
  TRY(CheckSource(source));
  Sha256 hash;
  const FileIdentity& file = source.identity;
  hash.Update(AsBytes(Format("packed weights {}, layouts {} {}, taskpress {}, XNNPACK {}\n{}inode {}, {} bytes, modified {}, changed {}\n",
                             kWeightCacheVersion, kPackedMatrixLayout, kColumnLayout, Version(), XnnpackBuild(), CpuDescription(),
                             file.inode, file.bytes, file.modified_ns, file.changed_ns)));
  AddSamples(hash, source.mapping);
  return FromHex(hash.FinishHex());
}

std::optional<SourceReader> SourceReader::Open(const WeightSource& source) {
  const int descriptor = open(source.path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return std::nullopt;
  SourceReader reader(source.mapping, descriptor);
  struct stat info{};
  if (fstat(descriptor, &info) != 0 || info.st_ino != source.identity.inode) return std::nullopt;
  return reader;
}

SourceReader::~SourceReader() {
  if (descriptor_ >= 0) close(descriptor_);
}

bool SourceReader::Covers(ByteView bytes) const {
  const auto file = reinterpret_cast<uintptr_t>(mapping_.data());
  const auto at = reinterpret_cast<uintptr_t>(bytes.data());
  return at >= file && RangeInside(at - file, bytes.size(), mapping_.size());
}

Status SourceReader::Read(const std::byte* place, ByteSpan to) const {
  auto offset = static_cast<off_t>(place - mapping_.data());
  while (!to.empty()) {
    const ssize_t got = pread(descriptor_, to.data(), to.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Fail(ErrorCode::kReadFailed, "a row of a table: {}", std::strerror(errno));
    if (got == 0) return Fail(ErrorCode::kReadFailed, "a row of a table at {}: the file has become shorter", offset);
    to = to.subspan(static_cast<size_t>(got));
    offset += got;
  }
  return {};
}

}  // namespace taskpress
