// How long a conversion will take, measured by doing parts of it.
//
// Windows of the stream, spread over the source, go the whole way: read, transformed, quantized, packed and written to files where the
// outputs will be, beside a digest of the inputs. What a disk gives to whom, what is in the page cache and what the processor is slow at
// all count as they will count later.
#ifndef TASKPRESS_CONVERTER_TIME_FORECAST_H_
#define TASKPRESS_CONVERTER_TIME_FORECAST_H_

#include <cstdint>
#include <span>

#include "converter/conversion_plan.h"
#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"

namespace taskpress {

struct TimeForecast {
  double write_s = 0;  // read, transform, quantize, pack, write, digests of the inputs: all at once
  double prove_s = 0;  // read back, hash, smoke run
  [[nodiscard]] double total_s() const { return write_s + prove_s; }
};

// source_bytes: of all inputs; buffer_bytes: for units on their way, as in StreamOptions. Takes some seconds at most, and leaves nothing
// behind. The scales of the plan's roots are void afterwards. kWriteFailed when the outputs' folder takes no files of that size.
Result<TimeForecast> MeasureTime(ConversionPlan& plan, std::span<const BundleJob> jobs, uint64_t source_bytes, uint64_t buffer_bytes,
                                 const RowWork& work);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_TIME_FORECAST_H_
