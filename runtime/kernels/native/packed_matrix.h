// Weights of i4 and i8 in the order in which packed_product.h reads them.
//
// A matrix [out, in] is cut into tiles of 32 channels. A tile is one contiguous piece of memory, read from its begin to its end:
//
//   int32 [32]                  sums of the channels' weights
//   i8: bytes [in / 4][32][4]   byte [i][c][j] is weight (c, 4 i + j) plus 128
//   i4: bytes [in / 8][32][4]   byte [i][c][j] is weight (c, 8 i + j) plus 8, in its low nibble, and (c, 8 i + 4 + j) plus 8 in its high
//   one
//
// Columns are filled up to a multiple of 8 and channels to whole tiles, with weights 0. Weights are unsigned here, so that a nibble is one
// operation away from being an operand of the processors' products of bytes, which take an unsigned and a signed one; what the offset adds
// to a sum is a multiple of the sum of the activations and is taken off at the end. Nothing depends on the processor: packed matrices can
// be kept in files.
#ifndef TASKPRESS_RUNTIME_KERNELS_NATIVE_PACKED_MATRIX_H_
#define TASKPRESS_RUNTIME_KERNELS_NATIVE_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>

namespace taskpress {

// Changes whenever the bytes above do: part of the name of what is kept in files.
inline constexpr uint32_t kPackedMatrixLayout = 1;

inline constexpr int64_t kTileChannels = 32;

struct PackedMatrixShape {
  int bits = 0;     // of a weight: 4 or 8
  int64_t in = 0;   // at most kMaxIntegerColumns, so that sums fit int32; even for i4, so that rows are whole bytes
  int64_t out = 0;  // channels

  [[nodiscard]] int64_t tiles() const { return (out + kTileChannels - 1) / kTileChannels; }
  // What is added to a weight.
  [[nodiscard]] int32_t offset() const { return bits == 4 ? 8 : 128; }
  // Bytes of 32 channels that follow each other: 8 columns of i4, 4 of i8.
  static constexpr int64_t kGroupBytes = kTileChannels * 4;
  [[nodiscard]] int64_t group_columns() const { return 32 / bits; }
  [[nodiscard]] int64_t groups() const { return (in + 7) / 8 * 8 / group_columns(); }

  static constexpr int64_t kSumBytes = kTileChannels * 4;
  [[nodiscard]] int64_t tile_bytes() const { return kSumBytes + groups() * kGroupBytes; }
  [[nodiscard]] uint64_t bytes() const { return static_cast<uint64_t>(tiles() * tile_bytes()); }
};

// Writes tiles [first, first + count) of `weights` [out, in], as TFLite stores them, to where they belong in `packed` [shape.bytes()].
void PackTiles(const PackedMatrixShape& shape, const std::byte* weights, int64_t first, int64_t count, std::byte* packed);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_NATIVE_PACKED_MATRIX_H_
