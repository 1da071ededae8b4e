// How far quantized weights are from what they stand for. Sums run in double over fixed row blocks added up in order, so the figures are
// the same whatever the number of threads.
#ifndef TASKPRESS_QUANTIZER_ERROR_REPORT_H_
#define TASKPRESS_QUANTIZER_ERROR_REPORT_H_

#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "quantizer/parallel_rows.h"
#include "quantizer/quant_spec.h"
#include "quantizer/quantized_source.h"
#include "schema/base/error.h"
#include "schema/byte_source.h"
#include "schema/json.h"

namespace taskpress {

// w: original, e: original minus dequantized, n: number of values.
struct TensorError {
  std::string name;
  QuantSpec spec;
  int64_t num_rows = 0;
  int64_t columns = 0;
  double signal = 0;         // sum w^2
  double noise = 0;          // sum e^2
  double max_abs_error = 0;  // max |e|
  int64_t worst_row = 0;     // the first row that has it
  // Codes of integer types that are -7 and below or 7 and above (int4), -127 or 127 (int8): what clipping cuts is among them. And zeros.
  int64_t codes_at_ends = 0;
  int64_t zero_codes = 0;

  // 10 log10(signal / noise), infinite for an exact tensor.
  [[nodiscard]] double snr_db() const;
  // noise / n
  [[nodiscard]] double mean_squared_error() const;
  // sqrt(noise / signal); 0 for an exact tensor.
  [[nodiscard]] double relative_error() const;
  // codes_at_ends / n, zero_codes / n; 0 for float types.
  [[nodiscard]] double share_at_ends() const { return ShareOf(codes_at_ends); }
  [[nodiscard]] double share_of_zeros() const { return ShareOf(zero_codes); }

 private:
  [[nodiscard]] double ShareOf(int64_t codes) const;
};

// Reads every row of both. original: [num_rows, columns], the values the rows should stand for (scale factors included).
// kQuantShape when the rows are not of spec and columns; errors of the readers as they are.
Result<TensorError> MeasureTensorError(const std::string& name, const QuantSpec& spec, int64_t columns, const RowSource& quantized,
                                       const FloatRowReader& original, const RowWork& work = {});
// Of rows quantized on demand against their own floats.
Result<TensorError> MeasureTensorError(const QuantizedRows& rows, const RowWork& work = {});

// A table for people, worst signal-to-noise ratio first (equal ones by name).
[[nodiscard]] std::string FormatErrorReport(std::span<const TensorError> errors);
// The same rows in the same order; snr_db is null where it is infinite (an exact tensor).
[[nodiscard]] OrderedJson ErrorReportJson(std::span<const TensorError> errors);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_ERROR_REPORT_H_
