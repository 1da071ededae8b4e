#include <algorithm>
#include <atomic>

#include "runtime/kernels/native/quantize_row.h"
#include "runtime/sparse_block.h"
#include "runtime/thread_pool.h"

namespace taskpress {
namespace {

constexpr int64_t kMostRows = 256;  // of a group: their codes fit the second cache beside a strip of W_down
constexpr int64_t kSparsity = 8;    // while at most one of so many units is open, the sparse products are faster

// Threads take groups of tokens. In a group a row of W_up meets all tokens that have its unit open, and a strip of W_down stays in the
// cache for all of them.
class SparseTokens final : public Step {
 public:
  SparseTokens(const SparseBlock& block, int64_t tokens, std::vector<StepPtr> dense, const ThreadPool& threads)
      : block_(block), tokens_(tokens), dense_(std::move(dense)), threads_(threads) {
    const int64_t wanted = std::max((tokens + kMostRows - 1) / kMostRows, std::min<int64_t>(threads.threads(), tokens));
    rows_ = (tokens + wanted - 1) / wanted;
    groups_ = (tokens + rows_ - 1) / rows_;
    room_ = std::max(rows_ * block.units / kSparsity, block.units);
    ones_.resize(static_cast<size_t>(SplitRowLength(block.up.in)));
    const std::vector<int8_t> ones(static_cast<size_t>(block.up.in), 1);
    SplitRow(ones.data(), block.up.in, block.up.bits, ones_.data());
    open_ = shared_.Add<uint16_t>(groups_ * room_);
    begins_ = shared_.Add<int32_t>(groups_ * (rows_ + 1));
    split_ = own_.Add<int8_t>(rows_ * SplitRowLength(block.up.in));
    unit_ends_ = own_.Add<int32_t>(block.units);
    readers_ = own_.Add<uint16_t>(room_);
    places_ = own_.Add<int32_t>(room_);
    values_ = own_.Add<float>(rows_);
    products_ = own_.Add<float>(room_);
    codes_ = own_.Add<int8_t>(room_);
    columns_ = own_.Add<uint16_t>(3 * (room_ + rows_));
    listed_ = own_.Add<int8_t>(3 * (room_ + rows_));
    active_ = own_.Add<ActiveRow>(rows_);
  }

  [[nodiscard]] uint64_t workspace_bytes() const override {
    uint64_t bytes = shared_.bytes() + static_cast<uint64_t>(std::min<int64_t>(threads_.threads(), groups_)) * own_.bytes();
    for (const StepPtr& step : dense_) bytes = std::max(bytes, step->workspace_bytes());
    return bytes;
  }
  Status Bind(std::byte* workspace) override {
    workspace_ = workspace;
    for (const StepPtr& step : dense_) TRY(step->Bind(workspace));
    return {};
  }

  Status Run() override {
    std::atomic<bool> fits = true;
    threads_.ForEachWithWorker(groups_, [&](int64_t /*worker*/, int64_t group) {
      if (!FindOpenUnits(Of(0, group))) fits = false;
    });
    if (!fits) {
      for (const StepPtr& step : dense_) TRY(step->Run());
      return {};
    }
    threads_.ForEachWithWorker(groups_, [&](int64_t worker, int64_t number) {
      const Group group = Of(worker, number);
      SortByUnit(group);
      MultiplyUp(group);
      ListActiveColumns(group);
      MultiplyDown(group);
    });
    return {};
  }

 private:
  struct ActiveRow {
    ActiveColumns columns;
    float scale;
  };

  // A group of tokens and the memory for it.
  struct Group {
    int64_t first;  // token
    int64_t rows;
    uint16_t* open;      // open units of the rows, one row behind the other
    int32_t* begins;     // [rows + 1] where they begin
    int8_t* split;       // [rows] SplitRow
    int32_t* unit_ends;  // [units] where the readers of a unit end
    uint16_t* readers;   // rows that have a unit open, by unit
    int32_t* places;     // where it stands in `open`
    float* values;       // [rows] of W_up, for one unit
    float* products;     // as `open`: values of the gate, then times those of W_up
    int8_t* codes;       // of the products
    uint16_t* columns;   // ListActive
    int8_t* listed;
    ActiveRow* active;  // [rows]
  };

  template <typename T>
  static T* At(std::byte* memory, uint64_t offset) {
    return reinterpret_cast<T*>(memory + offset);
  }
  [[nodiscard]] Group Of(int64_t worker, int64_t number) const {
    std::byte* own = workspace_ + shared_.bytes() + static_cast<uint64_t>(worker) * own_.bytes();
    const int64_t first = number * rows_;
    return {.first = first,
            .rows = std::min(rows_, tokens_ - first),
            .open = At<uint16_t>(workspace_, open_) + number * room_,
            .begins = At<int32_t>(workspace_, begins_) + number * (rows_ + 1),
            .split = At<int8_t>(own, split_),
            .unit_ends = At<int32_t>(own, unit_ends_),
            .readers = At<uint16_t>(own, readers_),
            .places = At<int32_t>(own, places_),
            .values = At<float>(own, values_),
            .products = At<float>(own, products_),
            .codes = At<int8_t>(own, codes_),
            .columns = At<uint16_t>(own, columns_),
            .listed = At<int8_t>(own, listed_),
            .active = At<ActiveRow>(own, active_)};
  }

  [[nodiscard]] const float* GateOf(int64_t token) const { return block_.gate + token * block_.units; }

  // False when there is no room.
  [[nodiscard]] bool FindOpenUnits(const Group& group) const {
    group.begins[0] = 0;
    for (int64_t row = 0; row < group.rows; ++row) {
      const int32_t begin = group.begins[row];
      const int64_t room = room_ - begin;
      const int64_t count = FindNonZeros(GateOf(group.first + row), block_.units, room, group.open + begin);
      if (count > room) return false;
      group.begins[row + 1] = begin + static_cast<int32_t>(count);
    }
    return true;
  }

  void SortByUnit(const Group& group) const {
    int32_t* const next = group.unit_ends;
    std::fill_n(next, block_.units, 0);
    for (int32_t i = 0; i < group.begins[group.rows]; ++i) ++next[group.open[i]];
    int32_t begin = 0;
    for (int64_t unit = 0; unit < block_.units; ++unit) begin += std::exchange(next[unit], begin);
    for (int64_t row = 0; row < group.rows; ++row) {
      for (int32_t i = group.begins[row]; i < group.begins[row + 1]; ++i) {
        const int32_t at = next[group.open[i]]++;
        group.readers[at] = static_cast<uint16_t>(row);
        group.places[at] = i;
        group.products[i] = GateOf(group.first + row)[group.open[i]];
      }
    }
  }

  void MultiplyUp(const Group& group) const {
    const CodeRows copy = RowsOf(block_.input);
    const int64_t in = block_.up.in;
    for (int64_t row = 0; row < group.rows; ++row) {
      SplitRow(copy.codes + (group.first + row) * in, in, block_.up.bits, group.split + row * SplitRowLength(in));
    }
    UnitProduct up = block_.up;
    up.codes = group.split;
    up.ones = ones_.data();
    up.row = PackedRowsOf(block_.input) + group.first;
    int32_t begin = 0;
    for (int64_t unit = 0; unit < block_.units; ++unit) {
      const int32_t end = group.unit_ends[unit];
      if (begin == end) continue;
      const std::span readers(group.readers + begin, group.readers + end);
      MultiplyUnit(up, unit, readers, group.values);
      for (int32_t i = begin; i < end; ++i) group.products[group.places[i]] *= group.values[i - begin];
      begin = end;
    }
  }

  // As the whole row is quantized: the zeros that are not there change neither its range, to which 0 belongs, nor its codes.
  void ListActiveColumns(const Group& group) const {
    int64_t listed = 0;
    for (int64_t row = 0; row < group.rows; ++row) {
      const int32_t begin = group.begins[row];
      const int64_t count = group.begins[row + 1] - begin;
      const RowQuantization quantization = count == 0 ? RowQuantization{} : QuantizeRow(group.products + begin, count, group.codes + begin);
      group.active[row] = {.columns = ListActive(group.open + begin, group.codes + begin, count, quantization.zero_point,
                                                 group.columns + listed, group.listed + listed),
                           .scale = quantization.scale};
      listed += group.active[row].columns.count;
    }
  }

  void MultiplyDown(const Group& group) const {
    for (int64_t strip = 0; strip < block_.down.shape.strips(); ++strip) {
      for (int64_t row = 0; row < group.rows; ++row) {
        float* const out = block_.out + (group.first + row) * block_.down.shape.out;
        const ActiveColumns next = row + 1 < group.rows ? group.active[row + 1].columns : ActiveColumns{};
        MultiplyColumns(block_.down, group.active[row].columns, next, group.active[row].scale, strip, 1, out);
      }
    }
  }

  SparseBlock block_;
  int64_t tokens_;
  std::vector<StepPtr> dense_;
  const ThreadPool& threads_;
  int64_t rows_ = 0;  // of a group
  int64_t groups_ = 0;
  int64_t room_ = 0;          // for a group's open units
  std::vector<int8_t> ones_;  // SplitRow
  WorkspaceLayout shared_;    // what one pass over the groups leaves for the next
  WorkspaceLayout own_;       // of a worker
  uint64_t open_, begins_, split_, unit_ends_, readers_, places_, values_, products_, codes_, columns_, listed_, active_;
  std::byte* workspace_ = nullptr;
};

}  // namespace

StepPtr MakeSparseTokens(const SparseBlock& block, int64_t tokens, std::vector<StepPtr> dense, const ThreadPool& threads) {
  return std::make_unique<SparseTokens>(block, tokens, std::move(dense), threads);
}

}  // namespace taskpress
