// `.task`: a zip archive whose entries are stored, so that a client maps the file and uses each model in place.
//
// The reader takes what MediaPipe and LiteRT-LM load and refuses what two readers could understand differently; the writer gives every
// entry's data a multiple of 64 bytes. Rules T1.. are in schema/FORMATS.md. Callers outside schema/ use schema/bundle.h.
#ifndef TASKPRESS_SCHEMA_TASK_H_
#define TASKPRESS_SCHEMA_TASK_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "schema/base/error.h"
#include "schema/base/output_file.h"
#include "schema/bundle.h"
#include "schema/byte_source.h"
#include "schema/zip_records.h"

namespace taskpress {

// kZipStructure, kZipEntry, kDuplicateSection, kZipUnsupported. `file` needs a view(); only its framing is read.
Result<Bundle> ReadTask(const SharedBytes& file, std::string_view name);

// Where everything goes. Sizes and positions are final; the CRC-32 of each entry is filled in once its data is written.
struct TaskPlan {
  std::vector<ZipEntry> entries;
  std::vector<uint64_t> data_offsets;
  uint64_t directory_offset = 0;
  uint64_t file_size = 0;
  uint64_t zip64_from = kZip64From;
};
// kZipEntry, kDuplicateSection when the sections cannot be entries of one archive.
Result<TaskPlan> PlanTask(std::span<const SectionToWrite> sections, uint64_t zip64_from = kZip64From);

// The local header and padding in front of data_offsets[index], and all that follows the last entry.
std::vector<std::byte> EncodeLocalHeader(const TaskPlan& plan, size_t index);
std::vector<std::byte> EncodeDirectory(const TaskPlan& plan);

Status WriteTask(TaskPlan plan, std::span<const SectionToWrite> sections, OutputFile& file);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_TASK_H_
