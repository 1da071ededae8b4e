#include "runtime/constant_store.h"

#include <algorithm>
#include <cmath>

#include "schema/base/half.h"

namespace taskpress {
namespace {

// Rows that one task quantizes at a time; any split gives the same bytes.
constexpr int64_t kRowsPerTask = 64;

}  // namespace

ConstantStore::Entry& ConstantStore::EntryOf(const SharedBytes& source) {
  Entry& entry = entries_[source.get()];
  entry.source = source;
  return entry;
}

Status ConstantStore::CopyRows(Entry& entry, const RowSource& rows) const {
  TensorBuffer copy = TRY(TensorBuffer::Make(rows.size()));
  const auto per_row = static_cast<size_t>(rows.scales_per_row());
  entry.scales.resize(static_cast<size_t>(rows.num_rows()) * per_row);
  const int64_t tasks = (rows.num_rows() + kRowsPerTask - 1) / kRowsPerTask;
  std::vector<Status> statuses(static_cast<size_t>(tasks));
  threads_->ForEach(tasks, [&](int64_t task) {
    const int64_t first = task * kRowsPerTask;
    const int64_t count = std::min(kRowsPerTask, rows.num_rows() - first);
    const ByteSpan packed =
        copy.bytes().subspan(static_cast<size_t>(first) * rows.row_bytes(), static_cast<size_t>(count) * rows.row_bytes());
    const auto scales = std::span(entry.scales).subspan(static_cast<size_t>(first) * per_row, static_cast<size_t>(count) * per_row);
    statuses[static_cast<size_t>(task)] = rows.ReadRows(first, count, packed, scales);
  });
  for (Status& status : statuses) TRY(std::move(status));
  entry.copy = std::move(copy);
  return {};
}

Result<const std::byte*> ConstantStore::Data(Entry& entry, size_t alignment, Access access) const {
  if (entry.copy.data() != nullptr) return entry.copy.data();
  const ByteView view = entry.source->view();
  const bool aligned = reinterpret_cast<uintptr_t>(view.data()) % alignment == 0;
  if (!view.empty() && aligned && access == Access::kExact) return view.data();
  if (entry.source->rows() != nullptr) {
    TRY(CopyRows(entry, *entry.source->rows()));
    return entry.copy.data();
  }
  TensorBuffer copy = TRY(TensorBuffer::Make(entry.source->size()));
  TRY(entry.source->Read(0, copy.bytes()));
  entry.copy = std::move(copy);
  return entry.copy.data();
}

Result<std::span<const float>> ConstantStore::Scales(const Quantization& quantization) {
  const SharedBytes& source = quantization.scales;
  if (quantization.num_scales < 1 || source->size() / sizeof(float) != static_cast<uint64_t>(quantization.num_scales) ||
      source->size() % sizeof(float) != 0) {
    return Fail(ErrorCode::kTfliteQuantization, "{} scales, but {} bytes of them", quantization.num_scales, source->size());
  }
  const std::byte* data = TRY(Data(EntryOf(source), alignof(float), Access::kExact));
  return std::span(reinterpret_cast<const float*>(data), static_cast<size_t>(quantization.num_scales));
}

Result<ConstantStore::Constant> ConstantStore::Get(const Graph& graph, const Tensor& tensor, Access access) {
  const SharedBytes& source = graph.buffers[static_cast<size_t>(tensor.buffer)].bytes;
  const std::optional<uint64_t> expected = NumBytes(tensor.type, tensor.shape);
  if (source == nullptr || !expected || source->size() != *expected) {
    return Fail(ErrorCode::kTfliteReference, "constant {}: {} {} does not have {} bytes", tensor.name, NameOf(tensor.type),
                ToString(tensor.shape), source == nullptr ? 0 : source->size());
  }
  Entry& entry = EntryOf(source);
  Constant constant;
  constant.data = TRY(Data(entry, static_cast<size_t>(std::max(8, InfoOf(tensor.type).bits)) / 8, access));
  if (tensor.quantization == kNone) return constant;
  const Quantization& quantization = graph.quantizations[static_cast<size_t>(tensor.quantization)];
  constant.quantized_axis = quantization.axis;
  constant.scales = quantization.scales != nullptr ? TRY(Scales(quantization)) : std::span<const float>(entry.scales);
  return constant;
}

Result<const std::byte*> ConstantStore::GetDequantized(const Graph& graph, const Tensor& tensor) {
  if (tensor.type != DType::kF16) {
    return Fail(ErrorCode::kKernelUnsupported, "DEQUANTIZE of constant {}: only f16, it is {}", tensor.name, NameOf(tensor.type));
  }
  const Constant halves = TRY(Get(graph, tensor, Access::kExact));
  Entry& entry = EntryOf(graph.buffers[static_cast<size_t>(tensor.buffer)].bytes);
  if (entry.dequantized.data() != nullptr) return entry.dequantized.data();
  const uint64_t count = entry.source->size() / sizeof(uint16_t);
  TensorBuffer floats = TRY(TensorBuffer::Make(count * sizeof(float)));
  const auto* from = reinterpret_cast<const uint16_t*>(halves.data);
  auto* to = reinterpret_cast<float*>(floats.data());
  for (uint64_t i = 0; i < count; ++i) to[i] = F16ToFloat(from[i]);
  entry.dequantized = std::move(floats);
  return entry.dequantized.data();
}

Result<std::span<const float>> ConstantStore::GetBlockScales(const Graph& graph, const Tensor& scales) {
  const auto* values = reinterpret_cast<const float*>(TRY(GetDequantized(graph, scales)));
  const std::span all(values, static_cast<size_t>(NumElements(scales.shape).value_or(0)));
  constexpr float kSmallestNormal = 0x1p-14F;
  for (const float scale : all) {
    if (scale >= kSmallestNormal && std::isfinite(scale)) continue;
    return Fail(ErrorCode::kTfliteQuantization, "constant {}: scale {} of block {} is not a positive normal f16", scales.name, scale,
                &scale - all.data());
  }
  return all;
}

}  // namespace taskpress
