#include "converter/prove_part.h"

#include <algorithm>
#include <future>

#include "runtime/bundle_model.h"
#include "runtime/smoke.h"
#include "schema/base/hash.h"
#include "schema/base/mapped_file.h"
#include "schema/bundle_sizes.h"

namespace taskpress {
namespace {

constexpr uint64_t kBlock = 1 << 20;

bool Stopped(const std::atomic<bool>* stop) { return stop != nullptr && stop->load(); }

Result<std::string> HashFile(const std::filesystem::path& path, const std::atomic<bool>* stop) {
  const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(path));
  Sha256 hash;
  for (uint64_t offset = 0; offset < file->size() && !Stopped(stop); offset += kBlock) {
    hash.Update(file->bytes().subspan(offset, std::min(kBlock, file->size() - offset)));
  }
  TRY(file->CheckUnchanged());
  return hash.FinishHex();
}

Status CheckSections(const Bundle& bundle, const SectionCrcs& expected, const std::atomic<bool>* stop) {
  for (const auto& [kind, crc] : expected) {
    if (bundle.Find(kind) == nullptr) return Fail(ErrorCode::kWriteFailed, "{}: section \"{}\" is gone", bundle.path, InfoOf(kind).name);
  }
  for (const Section& section : bundle.sections) {
    const auto written = std::ranges::find(expected, section.kind, &SectionCrcs::value_type::first);
    const bool is_framed = bundle.container == Container::kTask;  // has checksums of its own
    if (written == expected.end() && !is_framed) continue;
    uint32_t crc = 0;
    const ByteView bytes = section.bytes->view();
    for (uint64_t offset = 0; offset < bytes.size() && !Stopped(stop); offset += kBlock) {
      crc = Crc32(crc, bytes.subspan(offset, std::min<uint64_t>(kBlock, bytes.size() - offset)));
    }
    if (Stopped(stop)) return Fail(ErrorCode::kInterrupted, "stopped by a signal");
    if ((written != expected.end() && crc != written->second) || (is_framed && crc != section.crc32)) {
      return Fail(ErrorCode::kWriteFailed, "{}: section \"{}\" does not read back as it was written; is the disk sound?", bundle.path,
                  section.name);
    }
  }
  return {};
}

}  // namespace

Result<std::string> ReadBack(const std::filesystem::path& file, const SectionCrcs& expected, const std::atomic<bool>* stop) {
  const Bundle bundle = TRY(ReadBundle(file));
  std::future<Result<std::string>> hash = std::async(std::launch::async, [&] { return HashFile(file, stop); });
  const Status sections = CheckSections(bundle, expected, stop);
  Result<std::string> sha256 = hash.get();
  TRY(sections);
  TRY(VerifySizes(bundle));
  if (Stopped(stop)) return Fail(ErrorCode::kInterrupted, "stopped by a signal");
  return sha256;
}

Status LetSpeak(const std::filesystem::path& file, int threads, const std::atomic<bool>* stop) {
  const Bundle bundle = TRY(ReadBundle(file));
  const std::vector<std::string> sizes = bundle.SizeNames();
  for (const std::string& size : sizes) {
    const BundleModel model = TRY(LoadBundleModel(bundle, size));
    TRY(SmokeRun(model.graphs, model.metadata, threads));
    if (Stopped(stop)) return Fail(ErrorCode::kInterrupted, "stopped by a signal");
  }
  return {};
}

}  // namespace taskpress
