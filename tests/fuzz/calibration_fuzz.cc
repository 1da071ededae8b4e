// Bytes as a whole file, as an index and as a body: the checksums of a file keep mutations from getting further, so the parts are tried
// alone.
#include <cstdint>
#include <span>

#include "quantizer/calibration_file.h"
#include "schema/base/hash.h"
#include "tests/fuzz/require.h"

namespace taskpress {
namespace {

constexpr int64_t kMaxColumns = 64;  // what a body of this size costs nothing to try

void RequireLayout(const CalibrationIndex& index) {
  uint64_t end = kCalibrationHeaderBytes;
  for (const CalibrationSite& site : index.sites) {
    Require(site.offset == end && site.columns >= 1 && site.columns <= kMaxMomentColumns && !site.name.empty());
    end += site.bytes;
  }
  const Result<std::string> text = FormatCalibrationIndex(index);
  Require(text.has_value());
  const Result<CalibrationIndex> again = ParseCalibrationIndex(AsBytes(*text), end);
  Require(again && again->info == index.info && again->sites == index.sites);
}

void TryBody(ByteView file, const CalibrationSite& site) {
  if (site.columns > kMaxColumns) return;
  Result<SecondMoments> moments = MakeMoments(site.columns, site.kind);
  Require(moments.has_value());
  if (AddCalibrationSite(file, site, *moments)) Require(CheckMoments(*moments).has_value());
}

}  // namespace
}  // namespace taskpress

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace taskpress;
  const ByteView bytes = std::as_bytes(std::span(data, size));
  if (const Result<CalibrationIndex> file = ParseCalibration(bytes)) {
    RequireLayout(*file);
    for (const CalibrationSite& site : file->sites) TryBody(bytes, site);
  }
  if (const Result<CalibrationIndex> journal = ParseCalibrationIndex(bytes, std::nullopt)) RequireLayout(*journal);
  for (const MomentKind kind : {MomentKind::kFull, MomentKind::kDiagonal}) {
    TryBody(bytes, {.name = "body", .columns = 3, .kind = kind, .offset = 0, .bytes = size, .crc32 = Crc32(0, bytes)});
  }
  return 0;
}
