// Streams one TFLite member into an output file: weights are read, quantized and packed in row blocks on all cores and written where they
// belong; the root, which holds their scales, is written last. Memory is a few row blocks and the root.
#ifndef TASKPRESS_CONVERTER_MEMBER_WRITER_H_
#define TASKPRESS_CONVERTER_MEMBER_WRITER_H_

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"
#include "schema/base/output_file.h"
#include "schema/member_image.h"
#include "schema/tflite.h"

namespace taskpress {

// Called from worker threads, one call at a time: so many bytes of `tensor` are written;
// without a name, of the root or of a gap.
using BytesWritten = std::function<void(std::string_view tensor, uint64_t bytes)>;

// Writes graph's member of image.size bytes at `offset` and returns its CRC-32. The same bytes for any number of threads.
Result<uint32_t> WriteMember(const Graph& graph, TfliteImage image, OutputFile& file, uint64_t offset, const RowWork& work,
                             const BytesWritten& on_bytes);

// The same for a member of several roots. Returns the CRC-32 of each root's member, [root, end). A constant that roots share is produced
// once; its scales go to every root that has it.
Result<std::vector<uint32_t>> WriteMember(MemberImage image, OutputFile& file, uint64_t offset, const RowWork& work,
                                          const BytesWritten& on_bytes);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_MEMBER_WRITER_H_
