#include "runtime/xnnpack_packed_weights.h"

#include <xnnpack.h>

#include <charconv>
#include <limits>
#include <utility>

#include "schema/base/checked_math.h"
#include "schema/base/hash.h"
#include "schema/base/mapped_file.h"

namespace taskpress {

// XNNPACK calls these while an operator is created. What it calls an offset is the address here: packed matrices never move.
struct PackedWeights::Callbacks {
  static constexpr size_t kNotFound = std::numeric_limits<size_t>::max();

  static PackedWeights& Self(void* context) { return *static_cast<PackedWeights*>(context); }
  // The seed identifies kernel and packing.
  static std::string LayoutOf(const xnn_weights_cache_look_up_key& key) { return Format("xnnpack {:08x}", key.seed); }

  static size_t LookUp(void* context, const xnn_weights_cache_look_up_key* key) {
    PackedWeights& self = Self(context);
    const std::byte* found = self.Find(LayoutOf(*key), self.matrix_, std::nullopt);
    return found == nullptr ? kNotFound : reinterpret_cast<size_t>(found);
  }

  static void* ReserveSpace(void* context, size_t bytes) {
    const Result<ByteSpan> reserved = Self(context).Reserve(bytes);
    return reserved ? reserved->data() : nullptr;
  }

  static size_t LookUpOrInsert(void* context, const xnn_weights_cache_look_up_key* key, void* packed, size_t /*bytes*/) {
    PackedWeights& self = Self(context);
    return reinterpret_cast<size_t>(self.Insert(LayoutOf(*key), self.matrix_, static_cast<const std::byte*>(packed)));
  }

  // XNNPACK sets an operator up only when its weights will not move any more. Ours never do, even while more are added.
  static bool IsFinalized(void* /*context*/) { return true; }
  static void* OffsetToAddress(void* /*context*/, size_t offset) { return reinterpret_cast<void*>(offset); }
  static xnn_status DeleteCache(void* /*context*/) { return xnn_status_success; }
};

PackedWeights::PackedWeights() : provider_(std::make_unique<xnn_weights_cache_provider>()) {
  *provider_ = {.context = this,
                .look_up = Callbacks::LookUp,
                .reserve_space = Callbacks::ReserveSpace,
                .look_up_or_insert = Callbacks::LookUpOrInsert,
                .is_finalized = Callbacks::IsFinalized,
                .offset_to_addr = Callbacks::OffsetToAddress,
                .delete_cache = Callbacks::DeleteCache};
}

PackedWeights::~PackedWeights() = default;

xnn_weights_cache_provider* PackedWeights::ProviderFor(const Matrix& matrix) {
  matrix_ = matrix;
  return provider_.get();
}

// --- the file ---------------------------------------------------------------------------------------------------------------------------

void PackedWeights::UseSource(WeightSource source, const std::filesystem::path& file, const ThreadPool& threads) {
  source_ = std::move(source);
  if (std::optional<SourceReader> reader = SourceReader::Open(*source_)) reader_.emplace(*std::move(reader));
  if (file.empty()) return;
  const Result<WeightCacheFingerprint> fingerprint = FingerprintOf(*source_);
  if (!fingerprint) {
    note_ = fingerprint.error().message;
    unavailable_ = true;
    return;
  }
  path_ = file;
  fingerprint_ = *fingerprint;
  Result<WeightCacheFile> opened = WeightCacheFile::Open(file, fingerprint_, threads);
  if (opened) {
    file_ = *std::move(opened);
  } else if (opened.error().code != ErrorCode::kFileNotFound) {
    note_ = opened.error().message;
  }
}

void PackedWeights::StopWriting(const Error& why) {
  note_ = why.message;
  if (writer_) writer_->Abandon();
  sealed_ = true;
  unavailable_ = true;
}

void PackedWeights::Seal() {
  if (std::exchange(sealed_, true) || !writer_) return;
  // What was packed from a file that changed meanwhile is this process's business, and nobody else's.
  if (const Status same = CheckSource(*source_); !same) return StopWriting(same.error());
  if (file_) {
    for (const WeightCacheEntry& entry : file_->entries()) {
      if (const Status copied = writer_->Append(entry.key, file_->BytesOf(entry)); !copied) return StopWriting(copied.error());
    }
  }
  // fsync takes as long as the disk does; nobody has to wait for it but the end of the process.
  commit_ = std::jthread([writer = &*writer_] { static_cast<void>(writer->Commit()); });
}

std::optional<uint64_t> PackedWeights::OffsetInSource(ByteView bytes) const {
  const auto file = reinterpret_cast<uintptr_t>(source_->mapping.data());
  const auto at = reinterpret_cast<uintptr_t>(bytes.data());
  if (at < file || !RangeInside(at - file, bytes.size(), source_->mapping.size())) return std::nullopt;
  return at - file;
}

// Where bytes lie in the bundle, or else what they are.
std::string PackedWeights::PlaceOf(ByteView bytes) {
  if (bytes.empty()) return "none";
  if (const std::optional<uint64_t> at = OffsetInSource(bytes)) return Format("{} at {}", bytes.size(), *at);
  std::string& digest = digests_[{bytes.data(), bytes.size()}];
  if (digest.empty()) digest = Sha256Hex(bytes);
  return digest;
}

WeightCacheKey PackedWeights::FileKeyOf(std::string_view layout, const Matrix& matrix) {
  const std::string digest =
      Sha256Hex(AsBytes(Format("{}\n[{}, {}]\nbytes {}\nscales {}\nbias {}\n", layout, matrix.out, matrix.in, PlaceOf(matrix.bytes),
                               PlaceOf(std::as_bytes(matrix.scales)), PlaceOf(std::as_bytes(matrix.bias)))));
  WeightCacheKey key;
  for (size_t i = 0; i < key.size(); ++i) {
    unsigned value = 0;
    std::from_chars(digest.data() + 2 * i, digest.data() + 2 * i + 2, value, 16);
    key[i] = static_cast<std::byte>(value);
  }
  return key;
}

// --- matrices ---------------------------------------------------------------------------------------------------------------------------

PackedWeights::Key PackedWeights::KeyOf(std::string_view layout, const Matrix& matrix) {
  return {.layout = std::string(layout),
          .bytes = matrix.bytes.data(),
          .size = matrix.bytes.size(),
          .scales = matrix.scales.data(),
          .num_scales = matrix.scales.size(),
          .bias = matrix.bias.data(),
          .in = matrix.in,
          .out = matrix.out};
}

const std::byte* PackedWeights::Find(std::string_view layout, const Matrix& matrix, std::optional<uint64_t> bytes) {
  Key key = KeyOf(layout, matrix);
  if (const auto found = packed_.find(key); found != packed_.end()) return found->second;
  if (!file_) return nullptr;
  const ByteView mapped = file_->Find(FileKeyOf(layout, matrix));
  if (mapped.empty() || (bytes && mapped.size() != *bytes)) return nullptr;
  used_bytes_ += mapped.size();
  packed_.emplace(std::move(key), mapped.data());
  return mapped.data();
}

// In the file if there is to be one, and as long as the disk has room; else in memory.
Result<ByteSpan> PackedWeights::Reserve(uint64_t bytes) {
  reserved_in_file_ = false;
  if (!path_.empty() && !sealed_ && !writer_) {
    Result<WeightCacheWriter> writer = WeightCacheWriter::Create(path_, fingerprint_);
    if (writer) {
      writer_ = *std::move(writer);
    } else {
      StopWriting(writer.error());
    }
  }
  if (writing()) {
    const Result<ByteSpan> reserved = writer_->Reserve(bytes);
    reserved_in_file_ = reserved.has_value();
    if (reserved) return *reserved;
    StopWriting(reserved.error());
  }
  TensorBuffer buffer = TRY(TensorBuffer::Make(bytes));
  buffer.Zero();
  return memory_.emplace_back(std::move(buffer)).bytes();
}

const std::byte* PackedWeights::Insert(std::string_view layout, const Matrix& matrix, const std::byte* packed) {
  if (reserved_in_file_) writer_->Finish(FileKeyOf(layout, matrix));
  reserved_in_file_ = false;
  ForgetPages(matrix.bytes);  // packed bytes are read from now on, these not again
  return packed_.try_emplace(KeyOf(layout, matrix), packed).first->second;
}

void PackedWeights::ForgetPages(ByteView bytes) const {
  if (source_ && OffsetInSource(bytes)) Forget(bytes);
}

void PackedWeights::Rest(ByteView packed) const {
  if (file_) file_->Forget(packed);
}

Result<const std::byte*> PackedWeights::Packed(std::string_view layout, const Matrix& matrix, uint64_t bytes, const PackFunction& pack) {
  if (const std::byte* found = Find(layout, matrix, bytes)) return found;
  const ByteSpan to = TRY(Reserve(bytes));
  TRY(pack(to));
  return Insert(layout, matrix, to.data());
}

Result<const float*> PackedWeights::Transposed(const float* weights, int64_t out, int64_t in) {
  const std::span from(weights, static_cast<size_t>(out * in));
  const auto pack = [&](ByteSpan bytes) -> Status {
    auto* to = reinterpret_cast<float*>(bytes.data());
    for (int64_t row = 0; row < out; ++row) {
      for (int64_t column = 0; column < in; ++column) to[column * out + row] = weights[row * in + column];
    }
    return {};
  };
  return reinterpret_cast<const float*>(
      TRY(Packed("transposed f32", {.bytes = std::as_bytes(from), .in = in, .out = out}, from.size_bytes(), pack)));
}

uint64_t PackedWeights::bytes() const {
  const PackedWeightReport now = report();
  return now.anonymous_bytes + now.mapped_bytes;
}

PackedWeightReport PackedWeights::report() const {
  PackedWeightReport report{.mapped_bytes = used_bytes_ + (writer_ ? writer_->mapped_bytes() : 0), .note = note_};
  for (const TensorBuffer& one : memory_) report.anonymous_bytes += one.size();
  if (unavailable_) {
    report.state = WeightCacheState::kUnavailable;
  } else if (!path_.empty()) {
    report.state = writer_ ? WeightCacheState::kWritten : WeightCacheState::kUsed;
  }
  return report;
}

}  // namespace taskpress
