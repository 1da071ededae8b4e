// A constant's bytes, wherever they are: in a mapped file, in memory, or computed when somebody asks.
//
// A graph of gigabytes stays cheap to copy, print and compare because its constants are ByteSources. They are shared: the same
// weight serves several signatures of a graph and several copies of it, so two owners truly exist.
#ifndef TASKPRESS_SCHEMA_BYTE_SOURCE_H_
#define TASKPRESS_SCHEMA_BYTE_SOURCE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/base/mapped_file.h"

namespace taskpress {

class RowSource;

class ByteSource {
 public:
  ByteSource() = default;
  virtual ~ByteSource() = default;
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  [[nodiscard]] virtual uint64_t size() const = 0;

  // Fills `out` from `offset`. The range must lie inside [0, size()). Safe to call from several threads.
  virtual Status Read(uint64_t offset, ByteSpan out) const = 0;

  // The whole constant when it is addressable without copying (mapped or in memory), else an empty span.
  [[nodiscard]] virtual ByteView view() const { return {}; }

  // Not null when the constant is quantized on demand: its scales come out of the same pass as its bytes.
  [[nodiscard]] virtual const RowSource* rows() const { return nullptr; }

  // The source whose first bytes these are: itself, except for first rows of a matrix. What has the same storage can be stored once.
  [[nodiscard]] virtual const ByteSource& storage() const { return *this; }
};

// A matrix that is quantized row by row on demand. Rows are independent, so any split over threads gives the same bytes.
class RowSource : public ByteSource {
 public:
  [[nodiscard]] virtual int64_t num_rows() const = 0;
  [[nodiscard]] virtual uint64_t row_bytes() const = 0;
  [[nodiscard]] virtual int64_t scales_per_row() const { return 1; }
  [[nodiscard]] uint64_t size() const override { return static_cast<uint64_t>(num_rows()) * row_bytes(); }
  [[nodiscard]] const RowSource* rows() const override { return this; }
  // Equal, and not null, for sources whose rows of one number are made from the same stored rows: made together, those are read once.
  [[nodiscard]] virtual const void* origin() const { return nullptr; }
  // Not null when these rows are the block scales of another source's rows (MakeBlockScales). Who needs both asks for both at once: that
  // one's ReadRows brings the scales as well.
  [[nodiscard]] virtual const RowSource* scales_of() const { return nullptr; }
  // A hint that these rows are wanted soon.
  virtual void WillRead(int64_t first_row, int64_t count) const {
    static_cast<void>(first_row);
    static_cast<void>(count);
  }

  // packed: [count * row_bytes()], scales: [count * scales_per_row()]. Safe to call from several threads.
  virtual Status ReadRows(int64_t first_row, int64_t count, ByteSpan packed, std::span<float> scales) const = 0;

  // ReadRows for callers that want bytes only; whole rows are produced and the scales dropped.
  Status Read(uint64_t offset, ByteSpan out) const override;
};

using SharedBytes = std::shared_ptr<const ByteSource>;

// The first rows of another matrix, as a view of it: storage() is the whole. kReadFailed when it has fewer rows.
Result<SharedBytes> MakeFirstRows(std::shared_ptr<const RowSource> whole, int64_t num_rows);

// The scales of a matrix that has several per row, as a matrix of their own: float16 [rows, scales per row]. The scales are numbers that
// float16 holds.
std::shared_ptr<const RowSource> MakeBlockScales(std::shared_ptr<const RowSource> weights);
// scales [n] as float16, as MakeBlockScales stores them. packed: [2 n] bytes
void StoreBlockScales(std::span<const float> scales, ByteSpan packed);

// Owns its bytes, aligned to 64.
SharedBytes MakeMemorySource(ByteView bytes);
template <typename T>
SharedBytes MakeMemorySource(std::span<const T> values) {
  return MakeMemorySource(std::as_bytes(values));
}

// A range of a mapped file; keeps the mapping alive. Read() re-checks that the file has not shrunk.
Result<SharedBytes> MakeMappedSource(std::shared_ptr<const MappedFile> file, uint64_t offset, uint64_t size);

// A range of another source.
Result<SharedBytes> MakeSubSource(SharedBytes whole, uint64_t offset, uint64_t size);

// The bytes of a source: its view, or a read into `scratch`.
Result<ByteView> ViewOrRead(const ByteSource& source, std::vector<std::byte>& scratch);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BYTE_SOURCE_H_
