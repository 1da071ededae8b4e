// What rounding a matrix does to its outputs, where it is known what the matrix is multiplied with: the measure that mixed precision is
// chosen by.
//
// Of a row w and its error e, with H the mean of x x^T over calibration tokens: noise e^T H e, signal w^T H w, the mean squares of the
// output's error and of the output. Without H, sums of squares of e and w: H a multiple of the identity.
#ifndef TASKPRESS_QUANTIZER_OUTPUT_ERROR_H_
#define TASKPRESS_QUANTIZER_OUTPUT_ERROR_H_

#include <cstdint>

#include "quantizer/parallel_rows.h"
#include "quantizer/quantized_source.h"
#include "quantizer/second_moments.h"
#include "schema/base/error.h"

namespace taskpress {

struct OutputError {
  double signal = 0;
  double noise = 0;
  int64_t rows = 0;  // that were looked at
  // noise / signal; 0 for an exact matrix.
  [[nodiscard]] double relative() const { return noise == 0 ? 0 : noise / signal; }
  // Of one matrix that is stored in parts.
  OutputError& operator+=(const OutputError& other) {
    signal += other.signal;
    noise += other.noise;
    rows += other.rows;
    return *this;
  }
};

struct OutputErrorOptions {
  // Multiplications at most, about: of rows that would take more, blocks of 16 are looked at, evenly spread. At least one block.
  double work_limit = 1 << 30;
  RowWork work;
};

// `moments` of the rows' columns, full or diagonal; null: none. Sums run in double over fixed blocks added up in order: the same figures
// whatever the number of threads. kCalibrationMismatch for moments of other columns, errors of the rows as they are.
Result<OutputError> MeasureOutputError(const QuantizedRows& rows, const SecondMoments* moments, const OutputErrorOptions& options = {});

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_OUTPUT_ERROR_H_
