// Graphs for tests of the graph's own formats, and constants that are not what they seem.
#ifndef TASKPRESS_TESTS_TESTING_GRAPH_SAMPLES_H_
#define TASKPRESS_TESTS_TESTING_GRAPH_SAMPLES_H_

#include <cstdint>

#include "schema/byte_source.h"
#include "schema/graph.h"

namespace taskpress::testing {

// x [1,2,4] -> FULLY_CONNECTED with int8 weights [3,4] -> ADD of a constant [3] -> y [1,2,3].
Graph SmallGraph();

// Every operator with every attribute set to something other than its default, constants of all types the bundles use, inline and outside
// the FlatBuffer, and a second subgraph that shares weights and scales with the first.
Graph EveryOpGraph();

// Rows whose bytes and scales follow from their index: byte = row * 7 + column, scale = (row + 1) / 16.
class PatternRows final : public RowSource {
 public:
  PatternRows(int64_t rows, uint64_t row_bytes, int64_t scales_per_row = 1)
      : rows_(rows), row_bytes_(row_bytes), scales_per_row_(scales_per_row) {}
  [[nodiscard]] int64_t num_rows() const override { return rows_; }
  [[nodiscard]] uint64_t row_bytes() const override { return row_bytes_; }
  [[nodiscard]] int64_t scales_per_row() const override { return scales_per_row_; }
  Status ReadRows(int64_t first_row, int64_t count, ByteSpan packed, std::span<float> scales) const override;

 private:
  int64_t rows_;
  uint64_t row_bytes_;
  int64_t scales_per_row_;
};

// A source of any size that has no bytes to give.
class SizeOnly final : public ByteSource {
 public:
  explicit SizeOnly(uint64_t size) : size_(size) {}
  [[nodiscard]] uint64_t size() const override { return size_; }
  Status Read(uint64_t offset, ByteSpan out) const override;

 private:
  uint64_t size_;
};

// Another source's bytes, to be had by Read() only.
class Unaddressable final : public ByteSource {
 public:
  explicit Unaddressable(SharedBytes bytes) : bytes_(std::move(bytes)) {}
  [[nodiscard]] uint64_t size() const override { return bytes_->size(); }
  Status Read(uint64_t offset, ByteSpan out) const override { return bytes_->Read(offset, out); }

 private:
  SharedBytes bytes_;
};

// A graph whose one weight is `bytes`: ids i32 [1] -> EMBEDDING_LOOKUP in a table of `type` -> f32.
Graph LookupGraph(DType type, Shape table, SharedBytes bytes);

}  // namespace taskpress::testing

#endif  // TASKPRESS_TESTS_TESTING_GRAPH_SAMPLES_H_
