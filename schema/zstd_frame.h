// One zstd frame that declares its size, read and written piece by piece: files of ours that are larger than memory keep their bodies so.
#ifndef TASKPRESS_SCHEMA_ZSTD_FRAME_H_
#define TASKPRESS_SCHEMA_ZSTD_FRAME_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "schema/base/bytes.h"
#include "schema/base/error.h"
#include "schema/base/output_file.h"

namespace taskpress {

class ZstdFrameReader {
 public:
  // `frame` must outlive it. An error with `code` unless it is exactly one frame, nothing behind it, that declares `content_bytes`.
  static Result<ZstdFrameReader> Open(ByteView frame, uint64_t content_bytes, ErrorCode code);
  ZstdFrameReader(ZstdFrameReader&&) noexcept;
  ZstdFrameReader& operator=(ZstdFrameReader&&) noexcept;
  ~ZstdFrameReader();

  Status Read(ByteSpan out);
  // All has been read: nothing but the frame's end may be left.
  Status Finish();
  template <typename T>
  Status ReadInto(std::span<T> values) {
    return Read(std::as_writable_bytes(values));
  }
  template <typename T>
  Result<T> ReadOne() {
    T value;
    TRY(Read(std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }

 private:
  struct State;
  explicit ZstdFrameReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

class ZstdFrameWriter {
 public:
  // A frame at `offset` of the file, which must outlive it. The same content gives the same bytes with one version of libzstd.
  ZstdFrameWriter(OutputFile& file, uint64_t offset, uint64_t content_bytes, int level);
  ZstdFrameWriter(ZstdFrameWriter&&) noexcept;
  ZstdFrameWriter& operator=(ZstdFrameWriter&&) noexcept;
  ~ZstdFrameWriter();

  Status Write(ByteView bytes);
  Status Finish();
  template <typename T>
  Status WriteOne(const T& value) {
    return Write(std::as_bytes(std::span(&value, 1)));
  }
  // Of the frame so far.
  [[nodiscard]] uint64_t bytes() const;
  [[nodiscard]] uint32_t crc32() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_ZSTD_FRAME_H_
