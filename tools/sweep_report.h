// What a sweep over recipes found, as a table for people, JSON for programs and a page with a plot.
#ifndef TASKPRESS_TOOLS_SWEEP_REPORT_H_
#define TASKPRESS_TOOLS_SWEEP_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schema/json.h"

namespace taskpress {

// One recipe, converted and measured against the float model.
struct SweepRow {
  std::string recipe;  // as it was asked for: "dynamic_int4:clip"
  uint64_t bytes = 0;  // of the bundle
  double bits_per_weight = 0;
  double kl_mean = 0;  // nats
  double kl_p99 = 0;
  double top1_agreement = 0;
  double perplexity_ratio = 0;
  double seconds = 0;  // of the conversion
  std::optional<double> prefill_tokens_per_s;
  std::optional<double> decode_tokens_per_s;
  std::string error;  // why there are no figures, or empty
};

struct Sweep {
  std::string checkpoint;
  std::string text;
  std::string calibration;  // or empty
  int64_t positions = 0;
  std::vector<SweepRow> rows;
};

// [rows] true where no other row has fewer bytes without a larger divergence, nor a smaller divergence without more bytes.
std::vector<bool> ParetoFront(const std::vector<SweepRow>& rows);

// Rows by size, the front in bold.
std::string SweepMarkdown(const Sweep& sweep);
OrderedJson SweepJson(const Sweep& sweep);
// One file that needs nothing else: bytes against divergence, the front as a line, and the table.
std::string SweepHtml(const Sweep& sweep);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_SWEEP_REPORT_H_
