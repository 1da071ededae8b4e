#include <algorithm>
#include <utility>

#include "quantizer/calibration_file.h"
#include "schema/base/hash.h"
#include "schema/zstd_frame.h"

namespace taskpress {
namespace {

// Of floats little can be saved, and that is saved at any level.
constexpr int kLevel = 1;

std::filesystem::path JournalPath(const OutputFile& file) {
  std::filesystem::path path = file.part_path();
  path += ".journal";
  return path;
}

Status WriteBody(ZstdFrameWriter& frame, const SecondMoments& moments) {
  TRY(frame.WriteOne(moments.tokens));
  TRY(frame.WriteOne(moments.activation_step2));
  TRY(frame.Write(std::as_bytes(std::span(moments.sums))));
  TRY(frame.Write(std::as_bytes(std::span(moments.squares))));
  TRY(frame.Write(std::as_bytes(std::span(moments.max_magnitudes))));
  const auto columns = static_cast<size_t>(moments.columns);
  for (size_t row = 0; row * columns < moments.products.size(); ++row) {
    TRY(frame.Write(std::as_bytes(std::span(moments.products).subspan(row * columns, row + 1))));
  }
  return frame.Finish();
}

Status WriteJournal(OutputFile& file, const CalibrationIndex& index) {
  const std::string text = TRY(FormatCalibrationIndex(index));
  TRY(file.Flush());
  return WriteWholeFile(JournalPath(file), AsBytes(text), {.replace = true});
}

uint64_t EndOf(std::span<const CalibrationSite> sites) {
  return sites.empty() ? kCalibrationHeaderBytes : sites.back().offset + sites.back().bytes;
}

// H13: every body that the journal lists.
Status CheckBodies(const OutputFile& file, std::span<const CalibrationSite> sites) {
  std::vector<std::byte> block(1 << 20);
  for (const CalibrationSite& site : sites) {
    uint32_t crc = 0;
    for (uint64_t done = 0; done < site.bytes;) {
      const ByteSpan part = ByteSpan(block).first(std::min<uint64_t>(block.size(), site.bytes - done));
      if (!file.ReadAt(site.offset + done, part)) {
        return Fail(ErrorCode::kCannotResume, "{}: ends inside site \"{}\"", file.part_path().string(), site.name);
      }
      crc = Crc32(crc, part);
      done += part.size();
    }
    if (crc != site.crc32) {
      return Fail(ErrorCode::kCannotResume, "{}: the CRC-32 of site \"{}\" is wrong", file.part_path().string(), site.name);
    }
  }
  return {};
}

// The journal of an unfinished file, of the same calibration.
Result<CalibrationIndex> ReadJournal(const std::filesystem::path& path, const CalibrationInfo& info) {
  const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(path));
  Result<CalibrationIndex> index = ParseCalibrationIndex(file->bytes(), std::nullopt);
  if (!index) return Fail(ErrorCode::kCannotResume, "{}: {}", path.string(), index.error().message);
  if (index->info == info) return index;
  const CalibrationInfo& other = index->info;
  const char* what = other.model != info.model             ? "another model"
                     : other.token_hash != info.token_hash ? "other tokens"
                     : other.tokens != info.tokens         ? "another number of tokens"
                                                           : "another version";
  return Fail(ErrorCode::kCannotResume, "{}: was begun with {}", path.string(), what);
}

}  // namespace

Result<CalibrationWriter> CalibrationWriter::Create(const std::filesystem::path& path, CalibrationInfo info,
                                                    CalibrationWriterOptions options) {
  // What the reader would refuse is refused before the work.
  const CalibrationIndex empty{.info = info, .sites = {}};
  const std::string text = TRY(FormatCalibrationIndex(empty));
  TRY(ParseCalibrationIndex(AsBytes(text), kCalibrationHeaderBytes));
  const std::filesystem::path part = PartPath(path);
  std::filesystem::path journal = part;
  journal += ".journal";
  std::error_code ignored;
  if (!options.resume || !std::filesystem::exists(journal, ignored)) {
    OutputFile file = TRY(OutputFile::Create(path, 0, {.replace = options.replace, .keep = options.resume}));
    std::filesystem::remove(journal, ignored);  // of a part that has just been written over
    return CalibrationWriter(std::move(file), empty, kCalibrationHeaderBytes, options.resume);
  }
  CalibrationIndex index = TRY(ReadJournal(journal, info));
  const uint64_t size = std::filesystem::file_size(part, ignored);
  if (ignored) return Fail(ErrorCode::kCannotResume, "{}: is not there, its journal is", part.string());
  OutputFile file = TRY(OutputFile::Reopen(path, size, {.replace = options.replace}));
  TRY(CheckBodies(file, index.sites));
  const uint64_t end = EndOf(index.sites);
  return CalibrationWriter(std::move(file), std::move(index), end, true);
}

bool CalibrationWriter::Has(std::string_view name) const { return std::ranges::contains(index_.sites, name, &CalibrationSite::name); }

Status CalibrationWriter::Add(const std::string& name, const SecondMoments& moments) {
  if (Has(name)) return {};
  TRY(CheckMoments(moments));
  ZstdFrameWriter frame(file_, end_, CalibrationBodyBytes(moments.columns, moments.kind()), kLevel);
  TRY(WriteBody(frame, moments));
  CalibrationIndex grown = index_;
  grown.sites.push_back(
      {.name = name, .columns = moments.columns, .kind = moments.kind(), .offset = end_, .bytes = frame.bytes(), .crc32 = frame.crc32()});
  const std::string text = TRY(FormatCalibrationIndex(grown));
  TRY(ParseCalibrationIndex(AsBytes(text), end_ + frame.bytes()));
  if (resume_) TRY(WriteJournal(file_, grown));
  index_ = std::move(grown);
  end_ += frame.bytes();
  return {};
}

Status CalibrationWriter::Commit() {
  const std::string text = TRY(FormatCalibrationIndex(index_));
  TRY(ParseCalibrationIndex(AsBytes(text), end_));
  TRY(file_.WriteAt(end_, AsBytes(text)));
  TRY(file_.WriteAt(0, FormatCalibrationHeader(end_, text)));
  // An earlier process may have been further on, in a site that it did not finish.
  std::error_code failed;
  std::filesystem::resize_file(file_.part_path(), end_ + text.size(), failed);
  if (failed) return Fail(ErrorCode::kWriteFailed, "{}: cannot resize: {}", file_.part_path().string(), failed.message());
  const std::filesystem::path journal = JournalPath(file_);
  TRY(file_.Commit());
  if (resume_) std::filesystem::remove(journal, failed);
  return {};
}

Status MergeCalibrations(std::span<const std::filesystem::path> inputs, const std::filesystem::path& output, const std::string& version,
                         bool replace) {
  if (inputs.empty()) return Fail(ErrorCode::kCalibrationMismatch, "nothing to merge");
  std::vector<CalibrationFile> files;
  for (const std::filesystem::path& input : inputs) files.push_back(TRY(CalibrationFile::Open(input)));
  const CalibrationFile& first = files.front();
  CalibrationInfo info{.model = first.info().model, .token_hash = {}, .tokens = 0, .version = version};
  std::string hashes;
  for (const CalibrationFile& file : files) {
    const std::string where = file.path().string();
    if (file.info().model != info.model) {
      return Fail(ErrorCode::kCalibrationMismatch, "{}: is of model \"{}\", {} of \"{}\"", where, file.info().model, first.path().string(),
                  info.model);
    }
    if (file.sites().size() != first.sites().size()) {
      return Fail(ErrorCode::kCalibrationMismatch, "{}: has {} sites, {} has {}", where, file.sites().size(), first.path().string(),
                  first.sites().size());
    }
    for (const CalibrationSite& site : first.sites()) {
      const CalibrationSite* other = file.Find(site.name);
      if (other == nullptr || other->columns != site.columns || other->kind != site.kind) {
        return Fail(ErrorCode::kCalibrationMismatch, "{}: site \"{}\" is missing or has other columns or another kind", where, site.name);
      }
    }
    info.tokens += file.info().tokens;
    hashes += file.info().token_hash + "\n";
  }
  info.token_hash = Sha256Hex(AsBytes(hashes));
  CalibrationWriter writer = TRY(CalibrationWriter::Create(output, info, {.replace = replace}));
  for (const CalibrationSite& site : first.sites()) {
    SecondMoments sum = TRY(MakeMoments(site.columns, site.kind));
    for (const CalibrationFile& file : files) TRY(file.AddTo(*file.Find(site.name), sum));
    TRY(writer.Add(site.name, sum));
  }
  return writer.Commit();
}

}  // namespace taskpress
