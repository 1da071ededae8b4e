// A BenchReport as text, Markdown, CSV or JSON.
#ifndef TASKPRESS_TOOLS_BENCH_REPORT_H_
#define TASKPRESS_TOOLS_BENCH_REPORT_H_

#include <string>

#include "schema/json.h"
#include "tools/bench_measure.h"

namespace taskpress {

enum class BenchFormat : uint8_t { kText, kMarkdown, kCsv };

std::string FormatBench(const BenchArguments& arguments, const BenchReport& report, BenchFormat format);
OrderedJson BenchToJson(const BenchArguments& arguments, const BenchReport& report);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_BENCH_REPORT_H_
