#include "quantizer/bf16_kernels.h"

#include <bit>
#include <cstdint>

#include "schema/base/bytes.h"
#include "schema/base/half.h"

// Highway compiles this file once per instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantizer/bf16_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Loads bytes, because tensors of a file may begin at any byte.
void RowToFloat(const std::byte* from, std::span<float> out) {
  const hn::ScalableTag<uint32_t> words;
  const hn::Rebind<uint16_t, decltype(words)> halves;
  const hn::Repartition<uint8_t, decltype(halves)> bytes;
  const hn::RebindToFloat<decltype(words)> floats;
  const size_t lanes = hn::Lanes(words);
  size_t i = 0;
  for (; i + lanes <= out.size(); i += lanes) {
    const auto stored = hn::BitCast(halves, hn::LoadU(bytes, reinterpret_cast<const uint8_t*>(from) + 2 * i));
    hn::StoreU(hn::BitCast(floats, hn::ShiftLeft<16>(hn::PromoteTo(words, stored))), floats, out.data() + i);
  }
  Bf16RowToFloatPlain(from + 2 * i, out.subspan(i));
}

void ColumnsToFloat(const std::byte* from, size_t stride_bytes, size_t rows, std::span<float> out) {
  const size_t columns = out.size() / rows;
  for (size_t row = 0; row < rows; ++row) RowToFloat(from + row * stride_bytes, out.subspan(row * columns, columns));
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {
namespace {

HWY_EXPORT(RowToFloat);
HWY_EXPORT(ColumnsToFloat);

}  // namespace

void Bf16RowToFloat(const std::byte* from, std::span<float> out) { HWY_DYNAMIC_DISPATCH(RowToFloat)(from, out); }

void Bf16RowToFloatPlain(const std::byte* from, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = Bf16ToFloat(LoadLittle<uint16_t>(from + 2 * i));
}

void Bf16ColumnsToFloat(const std::byte* from, size_t stride_bytes, size_t rows, std::span<float> out) {
  if (rows > 0) HWY_DYNAMIC_DISPATCH(ColumnsToFloat)(from, stride_bytes, rows, out);
}

void Bf16ColumnsToFloatPlain(const std::byte* from, size_t stride_bytes, size_t rows, std::span<float> out) {
  const size_t columns = rows > 0 ? out.size() / rows : 0;
  for (size_t row = 0; row < rows; ++row) Bf16RowToFloatPlain(from + row * stride_bytes, out.subspan(row * columns, columns));
}

}  // namespace taskpress
#endif  // HWY_ONCE
