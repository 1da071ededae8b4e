#include "schema/byte_source.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "schema/base/checked_math.h"
#include "schema/base/half.h"

namespace taskpress {
namespace {

Status CheckRange(const ByteSource& source, uint64_t offset, uint64_t length) {
  if (RangeInside(offset, length, source.size())) return {};
  return Fail(ErrorCode::kReadFailed, "range [{}, +{}) lies outside a source of {} bytes", offset, length, source.size());
}

class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(ByteView bytes)
      : size_(bytes.size()), storage_(static_cast<std::byte*>(::operator new(std::max<size_t>(bytes.size(), 1), kAlignment))) {
    std::ranges::copy(bytes, storage_.get());
  }
  [[nodiscard]] uint64_t size() const override { return size_; }
  [[nodiscard]] ByteView view() const override { return {storage_.get(), size_}; }
  Status Read(uint64_t offset, ByteSpan out) const override {
    TRY(CheckRange(*this, offset, out.size()));
    std::ranges::copy(view().subspan(offset, out.size()), out.begin());
    return {};
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* bytes) const { ::operator delete(bytes, kAlignment); }
  };
  size_t size_;
  std::unique_ptr<std::byte, Free> storage_;
};

class MappedSource final : public ByteSource {
 public:
  MappedSource(std::shared_ptr<const MappedFile> file, ByteView bytes) : file_(std::move(file)), bytes_(bytes) {}
  [[nodiscard]] uint64_t size() const override { return bytes_.size(); }
  [[nodiscard]] ByteView view() const override { return bytes_; }
  Status Read(uint64_t offset, ByteSpan out) const override {
    TRY(CheckRange(*this, offset, out.size()));
    std::ranges::copy(bytes_.subspan(offset, out.size()), out.begin());
    return file_->CheckUnchanged();
  }

 private:
  std::shared_ptr<const MappedFile> file_;
  ByteView bytes_;
};

class SubSource final : public ByteSource {
 public:
  SubSource(SharedBytes whole, uint64_t offset, uint64_t size) : whole_(std::move(whole)), offset_(offset), size_(size) {}
  [[nodiscard]] uint64_t size() const override { return size_; }
  [[nodiscard]] ByteView view() const override {
    const ByteView all = whole_->view();
    return all.empty() ? ByteView() : all.subspan(offset_, size_);
  }
  Status Read(uint64_t offset, ByteSpan out) const override {
    TRY(CheckRange(*this, offset, out.size()));
    return whole_->Read(offset_ + offset, out);
  }

 private:
  SharedBytes whole_;
  uint64_t offset_;
  uint64_t size_;
};

class FirstRows final : public RowSource {
 public:
  FirstRows(std::shared_ptr<const RowSource> whole, int64_t num_rows) : whole_(std::move(whole)), num_rows_(num_rows) {}
  [[nodiscard]] int64_t num_rows() const override { return num_rows_; }
  [[nodiscard]] uint64_t row_bytes() const override { return whole_->row_bytes(); }
  [[nodiscard]] int64_t scales_per_row() const override { return whole_->scales_per_row(); }
  [[nodiscard]] const ByteSource& storage() const override { return whole_->storage(); }
  Status ReadRows(int64_t first_row, int64_t count, ByteSpan packed, std::span<float> scales) const override {
    if (first_row < 0 || count < 0 || first_row > num_rows_ || count > num_rows_ - first_row) {
      return Fail(ErrorCode::kReadFailed, "rows [{}, +{}) lie outside the first {} of a matrix", first_row, count, num_rows_);
    }
    return whole_->ReadRows(first_row, count, packed, scales);
  }

 private:
  std::shared_ptr<const RowSource> whole_;
  int64_t num_rows_;
};

class BlockScales final : public RowSource {
 public:
  explicit BlockScales(std::shared_ptr<const RowSource> weights) : weights_(std::move(weights)) {}
  [[nodiscard]] int64_t num_rows() const override { return weights_->num_rows(); }
  [[nodiscard]] uint64_t row_bytes() const override { return static_cast<uint64_t>(weights_->scales_per_row()) * sizeof(uint16_t); }
  [[nodiscard]] int64_t scales_per_row() const override { return 0; }
  [[nodiscard]] const void* origin() const override { return weights_->origin(); }
  [[nodiscard]] const RowSource* scales_of() const override { return weights_.get(); }
  void WillRead(int64_t first_row, int64_t count) const override { weights_->WillRead(first_row, count); }
  Status ReadRows(int64_t first_row, int64_t count, ByteSpan packed, std::span<float> /*scales*/) const override {
    if (first_row < 0 || count < 0 || first_row > num_rows() || count > num_rows() - first_row) {
      return Fail(ErrorCode::kReadFailed, "rows [{}, +{}) lie outside the scales of {} rows", first_row, count, num_rows());
    }
    std::vector<std::byte> codes(static_cast<size_t>(count) * weights_->row_bytes());
    std::vector<float> scales(static_cast<size_t>(count * weights_->scales_per_row()));
    TRY(weights_->ReadRows(first_row, count, codes, scales));
    StoreBlockScales(scales, packed);
    return {};
  }

 private:
  std::shared_ptr<const RowSource> weights_;
};

}  // namespace

std::shared_ptr<const RowSource> MakeBlockScales(std::shared_ptr<const RowSource> weights) {
  return std::make_shared<BlockScales>(std::move(weights));
}

void StoreBlockScales(std::span<const float> scales, ByteSpan packed) {
  for (size_t i = 0; i < scales.size(); ++i) StoreLittle(packed.data() + 2 * i, FloatToF16(scales[i]));
}

Result<SharedBytes> MakeFirstRows(std::shared_ptr<const RowSource> whole, int64_t num_rows) {
  if (num_rows < 1 || num_rows > whole->num_rows()) {
    return Fail(ErrorCode::kReadFailed, "the first {} rows of a matrix of {}", num_rows, whole->num_rows());
  }
  return std::make_shared<FirstRows>(std::move(whole), num_rows);
}

Status RowSource::Read(uint64_t offset, ByteSpan out) const {
  TRY(CheckRange(*this, offset, out.size()));
  if (out.empty()) return {};
  const auto first = static_cast<int64_t>(offset / row_bytes());
  const auto last = static_cast<int64_t>((offset + out.size() - 1) / row_bytes());
  const int64_t count = last - first + 1;
  std::vector<std::byte> packed(static_cast<size_t>(count) * row_bytes());
  std::vector<float> scales(static_cast<size_t>(count * scales_per_row()));
  TRY(ReadRows(first, count, packed, scales));
  std::ranges::copy(ByteView(packed).subspan(offset % row_bytes(), out.size()), out.begin());
  return {};
}

SharedBytes MakeMemorySource(ByteView bytes) { return std::make_shared<MemorySource>(bytes); }

Result<SharedBytes> MakeMappedSource(std::shared_ptr<const MappedFile> file, uint64_t offset, uint64_t size) {
  if (!RangeInside(offset, size, file->size())) {
    return Fail(ErrorCode::kReadFailed, "{}: range [{}, +{}) lies outside the file of {} bytes", file->name(), offset, size, file->size());
  }
  const ByteView bytes = file->bytes().subspan(offset, size);
  return std::make_shared<MappedSource>(std::move(file), bytes);
}

Result<SharedBytes> MakeSubSource(SharedBytes whole, uint64_t offset, uint64_t size) {
  TRY(CheckRange(*whole, offset, size));
  return std::make_shared<SubSource>(std::move(whole), offset, size);
}

Result<ByteView> ViewOrRead(const ByteSource& source, std::vector<std::byte>& scratch) {
  if (!source.view().empty() || source.size() == 0) return source.view();
  scratch.resize(source.size());
  TRY(source.Read(0, scratch));
  return ByteView(scratch);
}

}  // namespace taskpress
