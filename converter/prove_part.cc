#include "converter/prove_part.h"

#include <algorithm>
#include <future>

#include "converter/lock_file.h"
#include "quantizer/parallel_rows.h"
#include "runtime/bundle_model.h"
#include "runtime/smoke.h"
#include "schema/base/hash.h"
#include "schema/bundle_sizes.h"

namespace taskpress {
namespace {

constexpr uint64_t kBlock = 1 << 20;

// The model of an elastic bundle is one of its sizes: VerifySizes() reads those, all of them over the weights at once.
Result<uint32_t> ChecksumOf(const Bundle& bundle, const Section& section, const std::atomic<bool>* stop) {
  if (section.kind == SectionKind::kPrefillDecode && !bundle.sizes.empty()) {
    return std::ranges::find(bundle.sizes, true, &BundleSize::active)->crc32;
  }
  uint32_t crc = 0;
  const ByteView bytes = section.bytes->view();
  for (uint64_t offset = 0; offset < bytes.size(); offset += kBlock) {
    TRY(CheckNotStopped(stop));
    crc = Crc32(crc, bytes.subspan(offset, std::min<uint64_t>(kBlock, bytes.size() - offset)));
  }
  return crc;
}

Status CheckSections(const Bundle& bundle, const SectionCrcs& expected, const std::atomic<bool>* stop) {
  for (const auto& [kind, crc] : expected) {
    if (bundle.Find(kind) == nullptr) return Fail(ErrorCode::kWriteFailed, "{}: section \"{}\" is gone", bundle.path, InfoOf(kind).name);
  }
  for (const Section& section : bundle.sections) {
    const auto written = std::ranges::find(expected, section.kind, &SectionCrcs::value_type::first);
    const bool is_framed = bundle.container == Container::kTask;  // has checksums of its own
    if (written == expected.end() && !is_framed) continue;
    const uint32_t crc = TRY(ChecksumOf(bundle, section, stop));
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
  std::future<Result<FileDigest>> hash = std::async(std::launch::async, [&] { return DigestFile(file, stop); });
  const Status sections = CheckSections(bundle, expected, stop);
  Result<FileDigest> digest = hash.get();
  TRY(sections);
  TRY(VerifySizes(bundle));
  TRY(CheckNotStopped(stop));
  return TRY(std::move(digest)).sha256;
}

Status LetSpeak(const std::filesystem::path& file, int threads, const std::atomic<bool>* stop) {
  const Bundle bundle = TRY(ReadBundle(file));
  const std::vector<std::string> sizes = bundle.SizeNames();
  for (const std::string& size : sizes) {
    BundleModel model = TRY(LoadBundleModel(bundle, size));
    TRY(SmokeRun(std::move(model.graphs), model.metadata, threads));
    TRY(CheckNotStopped(stop));
  }
  return {};
}

}  // namespace taskpress
