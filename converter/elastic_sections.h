// What an elastic bundle has where a plain one has its prefill_decode section: the roots and weights of all sizes, and their list.
#ifndef TASKPRESS_CONVERTER_ELASTIC_SECTIONS_H_
#define TASKPRESS_CONVERTER_ELASTIC_SECTIONS_H_

#include <vector>

#include "converter/member_writer.h"
#include "converter/prepare.h"
#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"
#include "schema/bundle.h"

namespace taskpress {

// The prefill_decode section, to be produced while it is written, and the list, which is written after it. The model must have smaller
// sizes and outlive the sections. kBundleSizes for names or numbers that the list cannot hold.
Result<std::vector<SectionToWrite>> ElasticSections(const PreparedModel& model, const RowWork& work, const BytesWritten& on_bytes);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_ELASTIC_SECTIONS_H_
