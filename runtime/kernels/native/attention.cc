#include "runtime/kernels/native/attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

// Compiled once per instruction set; the best one for this CPU is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/kernels/native/attention.cc"
#include <hwy/foreach_target.h>
// Must come after foreach_target.h.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#ifndef TASKPRESS_ATTENTION_CONSTANTS
#define TASKPRESS_ATTENTION_CONSTANTS
namespace taskpress {
namespace {

// Rows (tokens times heads of a group) of a block: enough that a block of keys is read rarely, few enough that they stay in the L1 cache. A
// larger group makes a block of one token.
constexpr int64_t kRowsPerBlock = 32;
// Positions of a block. Sums over transposed values run along positions, so longer blocks have fewer sums to finish.
constexpr int64_t kPositions = 64;
constexpr int64_t kTransposedPositions = 256;

int64_t PositionsPerBlock(const AttentionShape& shape) { return shape.transposed_values ? kTransposedPositions : kPositions; }
int64_t RowsPerBlock(const AttentionShape& shape) { return TokensPerAttentionBlock(shape) * shape.group; }

}  // namespace
}  // namespace taskpress
#endif  // TASKPRESS_ATTENTION_CONSTANTS

HWY_BEFORE_NAMESPACE();
namespace taskpress::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Vector = hn::Vec<Floats>;

constexpr int64_t kTile = 4;

// out[r * out_stride + c] (+)= the dot product of row r of a and row c of b, `length` long, for up to four of each. Rows that are not there
// are the last one again.
template <bool kAdd>
void DotTile(const std::array<const float*, kTile>& a, const std::array<const float*, kTile>& b, int64_t length, int64_t rows,
             int64_t columns, float* out, int64_t out_stride) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  Vector s00 = hn::Zero(d), s01 = s00, s02 = s00, s03 = s00, s10 = s00, s11 = s00, s12 = s00, s13 = s00;
  Vector s20 = s00, s21 = s00, s22 = s00, s23 = s00, s30 = s00, s31 = s00, s32 = s00, s33 = s00;
  const auto step = [&](auto load, int64_t i) HWY_ATTR {
    const Vector b0 = load(b[0] + i), b1 = load(b[1] + i), b2 = load(b[2] + i), b3 = load(b[3] + i);
    const Vector a0 = load(a[0] + i), a1 = load(a[1] + i), a2 = load(a[2] + i), a3 = load(a[3] + i);
    s00 = hn::MulAdd(a0, b0, s00), s01 = hn::MulAdd(a0, b1, s01), s02 = hn::MulAdd(a0, b2, s02), s03 = hn::MulAdd(a0, b3, s03);
    s10 = hn::MulAdd(a1, b0, s10), s11 = hn::MulAdd(a1, b1, s11), s12 = hn::MulAdd(a1, b2, s12), s13 = hn::MulAdd(a1, b3, s13);
    s20 = hn::MulAdd(a2, b0, s20), s21 = hn::MulAdd(a2, b1, s21), s22 = hn::MulAdd(a2, b2, s22), s23 = hn::MulAdd(a2, b3, s23);
    s30 = hn::MulAdd(a3, b0, s30), s31 = hn::MulAdd(a3, b1, s31), s32 = hn::MulAdd(a3, b2, s32), s33 = hn::MulAdd(a3, b3, s33);
  };
  int64_t i = 0;
  for (; i + lanes <= length; i += lanes) step([&](const float* p) HWY_ATTR { return hn::LoadU(d, p); }, i);
  const auto rest = static_cast<size_t>(length - i);
  if (rest != 0) step([&](const float* p) HWY_ATTR { return hn::LoadN(d, p, rest); }, i);
  const auto store = [&](int64_t row, Vector c0, Vector c1, Vector c2, Vector c3) HWY_ATTR {
    if (row >= rows) return;
    const std::array sums{hn::ReduceSum(d, c0), hn::ReduceSum(d, c1), hn::ReduceSum(d, c2), hn::ReduceSum(d, c3)};
    float* to = out + row * out_stride;
    for (int64_t c = 0; c < columns; ++c) to[c] = kAdd ? to[c] + sums[static_cast<size_t>(c)] : sums[static_cast<size_t>(c)];
  };
  store(0, s00, s01, s02, s03);
  store(1, s10, s11, s12, s13);
  store(2, s20, s21, s22, s23);
  store(3, s30, s31, s32, s33);
}

// The rows [tokens x group] of a block and what has been summed up for them.
struct Block {
  const AttentionShape& shape;
  const AttentionOperands& operands;
  int64_t kv_head;
  int64_t rows;
  std::array<const float*, kMaxAttentionGroup> queries;
  std::array<const float*, kMaxAttentionGroup> masks;
  float* scores;   // [rows, PositionsPerBlock]
  float* sums;     // [rows, head_dim] of weighted values
  float* largest;  // [rows]
  float* weights;  // [rows] sums of weights

  [[nodiscard]] int64_t positions() const { return PositionsPerBlock(shape); }
  [[nodiscard]] const float* Key(int64_t position) const {
    return operands.keys + kv_head * operands.keys_stride + position * shape.head_dim;
  }
  [[nodiscard]] const float* Values() const { return operands.values + kv_head * operands.values_stride; }
};

void Score(const Block& block, int64_t begin, int64_t count) {
  for (int64_t j = 0; j < count; j += kTile) {
    std::array<const float*, kTile> keys;
    for (int64_t c = 0; c < kTile; ++c) keys[static_cast<size_t>(c)] = block.Key(begin + std::min(j + c, count - 1));
    for (int64_t r = 0; r < block.rows; r += kTile) {
      std::array<const float*, kTile> queries;
      for (int64_t i = 0; i < kTile; ++i)
        queries[static_cast<size_t>(i)] = block.queries[static_cast<size_t>(std::min(r + i, block.rows - 1))];
      DotTile<false>(queries, keys, block.shape.head_dim, std::min(kTile, block.rows - r), std::min(kTile, count - j),
                     block.scores + r * block.positions() + j, block.positions());
    }
  }
}

// Scores become weights relative to the largest score so far; what was summed up before is rescaled when that grows.
void Weigh(const Block& block, int64_t begin, int64_t count) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < block.rows; ++r) {
    float* scores = block.scores + r * block.positions();
    const float* mask = block.masks[static_cast<size_t>(r)] + begin;
    Vector most = hn::Set(d, block.largest[r]);
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      const Vector sum = hn::Add(hn::LoadU(d, scores + i), hn::LoadU(d, mask + i));
      hn::StoreU(sum, d, scores + i);
      most = hn::Max(most, sum);
    }
    float largest = hn::ReduceMax(d, most);
    for (; i < count; ++i) {
      scores[i] += mask[i];
      largest = std::max(largest, scores[i]);
    }
    if (largest > block.largest[r]) {
      const float factor = hn::GetLane(hn::Exp(d, hn::Set(d, block.largest[r] - largest)));
      const Vector by = hn::Set(d, factor);
      float* sums = block.sums + r * block.shape.head_dim;
      int64_t c = 0;
      for (; c + lanes <= block.shape.head_dim; c += lanes) hn::StoreU(hn::Mul(hn::LoadU(d, sums + c), by), d, sums + c);
      for (; c < block.shape.head_dim; ++c) sums[c] *= factor;
      block.weights[r] *= factor;
      block.largest[r] = largest;
    }
    const Vector shift = hn::Set(d, largest);
    Vector total = hn::Zero(d);
    for (i = 0; i + lanes <= count; i += lanes) {
      const Vector weight = hn::Exp(d, hn::Sub(hn::LoadU(d, scores + i), shift));
      hn::StoreU(weight, d, scores + i);
      total = hn::Add(total, weight);
    }
    const auto rest = static_cast<size_t>(count - i);
    if (rest != 0) {
      const Vector weight = hn::Exp(d, hn::Sub(hn::LoadN(d, scores + i, rest), shift));
      hn::StoreN(weight, d, scores + i, rest);
      total = hn::Add(total, hn::IfThenElseZero(hn::FirstN(d, rest), weight));
    }
    block.weights[r] += hn::ReduceSum(d, total);
  }
}

// sums[r, column .. column + kVectors vectors) += weights[r, :] values[:, same], for four rows. Rows that are not there are the last one
// again, which then gets the same result more than once.
template <int kVectors>
void MixTile(const Block& block, int64_t row, int64_t begin, int64_t count, int64_t column, size_t last_lanes) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t rows = std::min(kTile, block.rows - row);
  const int64_t width = block.shape.head_dim;
  std::array<const float*, kTile> weights;
  std::array<float*, kTile> sums;
  for (int64_t i = 0; i < kTile; ++i) {
    const int64_t r = row + std::min(i, rows - 1);
    weights[static_cast<size_t>(i)] = block.scores + r * block.positions();
    sums[static_cast<size_t>(i)] = block.sums + r * width + column;
  }
  const auto load = [&](const float* p) HWY_ATTR { return last_lanes == 0 ? hn::LoadU(d, p) : hn::LoadN(d, p, last_lanes); };
  const auto store = [&](Vector v, float* p) HWY_ATTR { last_lanes == 0 ? hn::StoreU(v, d, p) : hn::StoreN(v, d, p, last_lanes); };
  const float* value = block.Values() + begin * width + column;
  static_assert(kVectors == 1 || kVectors == 4);
  if constexpr (kVectors == 1) {
    Vector s0 = load(sums[0]), s1 = load(sums[1]), s2 = load(sums[2]), s3 = load(sums[3]);
    for (int64_t j = 0; j < count; ++j, value += width) {
      const Vector v = load(value);
      s0 = hn::MulAdd(hn::Set(d, weights[0][j]), v, s0), s1 = hn::MulAdd(hn::Set(d, weights[1][j]), v, s1);
      s2 = hn::MulAdd(hn::Set(d, weights[2][j]), v, s2), s3 = hn::MulAdd(hn::Set(d, weights[3][j]), v, s3);
    }
    store(s3, sums[3]), store(s2, sums[2]), store(s1, sums[1]), store(s0, sums[0]);
  } else {
    const auto at = [&](int64_t r, int64_t v) HWY_ATTR { return hn::LoadU(d, sums[static_cast<size_t>(r)] + v * lanes); };
    Vector s00 = at(0, 0), s01 = at(0, 1), s02 = at(0, 2), s03 = at(0, 3), s10 = at(1, 0), s11 = at(1, 1), s12 = at(1, 2), s13 = at(1, 3);
    Vector s20 = at(2, 0), s21 = at(2, 1), s22 = at(2, 2), s23 = at(2, 3), s30 = at(3, 0), s31 = at(3, 1), s32 = at(3, 2), s33 = at(3, 3);
    for (int64_t j = 0; j < count; ++j, value += width) {
      const Vector v0 = hn::LoadU(d, value), v1 = hn::LoadU(d, value + lanes);
      const Vector v2 = hn::LoadU(d, value + 2 * lanes), v3 = hn::LoadU(d, value + 3 * lanes);
      const Vector w0 = hn::Set(d, weights[0][j]), w1 = hn::Set(d, weights[1][j]), w2 = hn::Set(d, weights[2][j]),
                   w3 = hn::Set(d, weights[3][j]);
      s00 = hn::MulAdd(w0, v0, s00), s01 = hn::MulAdd(w0, v1, s01), s02 = hn::MulAdd(w0, v2, s02), s03 = hn::MulAdd(w0, v3, s03);
      s10 = hn::MulAdd(w1, v0, s10), s11 = hn::MulAdd(w1, v1, s11), s12 = hn::MulAdd(w1, v2, s12), s13 = hn::MulAdd(w1, v3, s13);
      s20 = hn::MulAdd(w2, v0, s20), s21 = hn::MulAdd(w2, v1, s21), s22 = hn::MulAdd(w2, v2, s22), s23 = hn::MulAdd(w2, v3, s23);
      s30 = hn::MulAdd(w3, v0, s30), s31 = hn::MulAdd(w3, v1, s31), s32 = hn::MulAdd(w3, v2, s32), s33 = hn::MulAdd(w3, v3, s33);
    }
    const auto put = [&](int64_t r, Vector c0, Vector c1, Vector c2, Vector c3) HWY_ATTR {
      float* to = sums[static_cast<size_t>(r)];
      hn::StoreU(c0, d, to), hn::StoreU(c1, d, to + lanes), hn::StoreU(c2, d, to + 2 * lanes), hn::StoreU(c3, d, to + 3 * lanes);
    };
    put(3, s30, s31, s32, s33), put(2, s20, s21, s22, s23), put(1, s10, s11, s12, s13), put(0, s00, s01, s02, s03);
  }
}

void MixRows(const Block& block, int64_t begin, int64_t count) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  int64_t column = 0;
  for (; column + 4 * lanes <= block.shape.head_dim; column += 4 * lanes) {
    for (int64_t row = 0; row < block.rows; row += kTile) MixTile<4>(block, row, begin, count, column, 0);
  }
  for (; column < block.shape.head_dim; column += lanes) {
    const int64_t rest = block.shape.head_dim - column;
    const size_t last_lanes = rest < lanes ? static_cast<size_t>(rest) : 0;
    for (int64_t row = 0; row < block.rows; row += kTile) MixTile<1>(block, row, begin, count, column, last_lanes);
  }
}

void MixTransposed(const Block& block, int64_t begin, int64_t count) {
  const int64_t width = block.shape.head_dim;
  for (int64_t column = 0; column < width; column += kTile) {
    std::array<const float*, kTile> values;
    for (int64_t c = 0; c < kTile; ++c) {
      values[static_cast<size_t>(c)] = block.Values() + std::min(column + c, width - 1) * block.operands.value_row_stride + begin;
    }
    for (int64_t row = 0; row < block.rows; row += kTile) {
      std::array<const float*, kTile> weights;
      for (int64_t i = 0; i < kTile; ++i)
        weights[static_cast<size_t>(i)] = block.scores + std::min(row + i, block.rows - 1) * block.positions();
      DotTile<true>(weights, values, count, std::min(kTile, block.rows - row), std::min(kTile, width - column),
                    block.sums + row * width + column, width);
    }
  }
}

void AttendRowsImpl(const Block& block, MaskRange range) {
  std::fill_n(block.sums, block.rows * block.shape.head_dim, 0.0F);
  std::fill_n(block.weights, block.rows, 0.0F);
  std::fill_n(block.largest, block.rows, std::numeric_limits<float>::lowest());
  for (int64_t begin = range.begin; begin < range.end; begin += block.positions()) {
    const int64_t count = std::min<int64_t>(block.positions(), range.end - begin);
    Score(block, begin, count);
    Weigh(block, begin, count);
    block.shape.transposed_values ? MixTransposed(block, begin, count) : MixRows(block, begin, count);
  }
}

float ExpOf(float x) { return hn::GetLane(hn::Exp(Floats(), hn::Set(Floats(), x))); }

// Entry points take plain arguments: types of this namespace do not cross the dispatch.
void AttendBlockImpl(const AttentionShape& shape, const AttentionOperands& operands, int64_t kv_head, int64_t first, int64_t count,
                     MaskRange range, float* scratch) {
  Block block{.shape = shape, .operands = operands, .kv_head = kv_head, .rows = count * shape.group};
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t token = first + r / shape.group;
    const int64_t head = kv_head * shape.group + r % shape.group;
    block.queries[static_cast<size_t>(r)] = operands.queries + token * operands.query_token_stride + head * operands.query_head_stride;
    block.masks[static_cast<size_t>(r)] = operands.mask + token * shape.seen;
  }
  const int64_t rows = RowsPerBlock(shape);
  block.scores = scratch;
  block.sums = block.scores + rows * PositionsPerBlock(shape);
  block.largest = block.sums + rows * shape.head_dim;
  block.weights = block.largest + rows;
  AttendRowsImpl(block, range);
}

void FactorsImpl(const float* largest, int64_t stride, int64_t count, float most, float* factors) {
  for (int64_t i = 0; i < count; ++i) factors[i] = ExpOf(largest[i * stride] - most);
}

}  // namespace taskpress::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace taskpress {

HWY_EXPORT(AttendBlockImpl);
HWY_EXPORT(FactorsImpl);

namespace {

void StoreResults(const AttentionShape& shape, const AttentionOperands& operands, int64_t kv_head, int64_t first, int64_t rows,
                  const float* sums, const float* weights) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t token = first + r / shape.group;
    const int64_t head = kv_head * shape.group + r % shape.group;
    float* out = operands.out + token * operands.out_token_stride + head * operands.out_head_stride;
    const float share = 1.0F / weights[r];
    for (int64_t c = 0; c < shape.head_dim; ++c) out[c] = sums[r * shape.head_dim + c] * share;
  }
}

}  // namespace

MaskRange OpenRange(std::span<const float> mask_row) {
  constexpr float kClosed = -1e8F;
  const auto open = [](float value) { return value > kClosed; };
  const auto begin = std::ranges::find_if(mask_row, open);
  if (begin == mask_row.end()) return {.begin = 0, .end = static_cast<int32_t>(mask_row.size())};
  auto end = mask_row.end();
  while (!open(*(end - 1))) --end;
  return {.begin = static_cast<int32_t>(begin - mask_row.begin()), .end = static_cast<int32_t>(end - mask_row.begin())};
}

int64_t TokensPerAttentionBlock(const AttentionShape& shape) { return std::max<int64_t>(1, kRowsPerBlock / shape.group); }

int64_t AttentionScratchFloats(const AttentionShape& shape) {
  return RowsPerBlock(shape) * (PositionsPerBlock(shape) + shape.head_dim + 2);
}

void AttendBlock(const AttentionShape& shape, const AttentionOperands& operands, std::span<const MaskRange> ranges, int64_t kv_head,
                 int64_t first, int64_t count, float* scratch) {
  MaskRange range = ranges[static_cast<size_t>(first)];
  for (const MaskRange& one : ranges.subspan(static_cast<size_t>(first), static_cast<size_t>(count))) {
    range = {.begin = std::min(range.begin, one.begin), .end = std::max(range.end, one.end)};
  }
  HWY_DYNAMIC_DISPATCH(AttendBlockImpl)(shape, operands, kv_head, first, count, range, scratch);
  const float* sums = scratch + RowsPerBlock(shape) * PositionsPerBlock(shape);
  const float* weights = sums + RowsPerBlock(shape) * (shape.head_dim + 1);
  StoreResults(shape, operands, kv_head, first, count * shape.group, sums, weights);
}

int64_t PartialFloats(const AttentionShape& shape) { return shape.group * (shape.head_dim + 2); }

void AttendPart(const AttentionShape& shape, const AttentionOperands& operands, int64_t kv_head, MaskRange positions, float* scratch,
                float* partial) {
  HWY_DYNAMIC_DISPATCH(AttendBlockImpl)(shape, operands, kv_head, 0, 1, positions, scratch);
  const int64_t rows = RowsPerBlock(shape);
  const float* sums = scratch + rows * PositionsPerBlock(shape);
  const float* largest = sums + rows * shape.head_dim;
  std::copy_n(largest, shape.group, partial);
  std::copy_n(largest + rows, shape.group, partial + shape.group);
  std::copy_n(sums, shape.group * shape.head_dim, partial + 2 * shape.group);
}

void MergeParts(const AttentionShape& shape, const AttentionOperands& operands, int64_t kv_head, const float* partials, int64_t count) {
  const int64_t stride = PartialFloats(shape);
  for (int64_t g = 0; g < shape.group; ++g) {
    float most = partials[g];
    for (int64_t i = 1; i < count; ++i) most = std::max(most, partials[i * stride + g]);
    float* out = operands.out + (kv_head * shape.group + g) * operands.out_head_stride;
    std::fill_n(out, shape.head_dim, 0.0F);
    float total = 0.0F;
    for (int64_t i = 0; i < count; ++i) {
      const float* part = partials + i * stride;
      float factor = 0.0F;
      HWY_DYNAMIC_DISPATCH(FactorsImpl)(part + g, stride, 1, most, &factor);
      total += part[shape.group + g] * factor;
      const float* sums = part + 2 * shape.group + g * shape.head_dim;
      for (int64_t c = 0; c < shape.head_dim; ++c) out[c] += sums[c] * factor;
    }
    const float share = 1.0F / total;
    for (int64_t c = 0; c < shape.head_dim; ++c) out[c] *= share;
  }
}

}  // namespace taskpress
#endif  // HWY_ONCE
