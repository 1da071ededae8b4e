// GPTQ for rows that come when somebody asks: scales by importance, codes by the factor of the input's moments.
#ifndef TASKPRESS_QUANTIZER_GPTQ_SOURCE_H_
#define TASKPRESS_QUANTIZER_GPTQ_SOURCE_H_

#include <cstdint>
#include <span>

#include "quantizer/gptq.h"
#include "quantizer/quant_spec.h"
#include "schema/base/bytes.h"
#include "schema/base/error.h"

namespace taskpress {

// As QuantizeRows: values [num_rows, factor.columns()], packed, scales; first_row for messages. Scales start as kClip's under `importance`
// [columns], are refitted per row, and of blocks chosen again when their turn comes. Rows are independent, so any split gives the same
// bytes. Errors of QuantizeRows and GptqQuantize.
Status GptqRows(const GptqFactor& factor, const QuantSpec& spec, std::span<const float> importance, std::span<const float> values,
                int64_t num_rows, ByteSpan packed, std::span<float> scales, int64_t first_row = 0);

// How the moments of `tokens` tokens are damped. Few tokens per column leave directions that no token was in, which only look free.
GptqOptions DampingFor(const SecondMoments& moments, const QuantSpec& spec);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_GPTQ_SOURCE_H_
