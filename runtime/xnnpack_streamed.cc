// FULLY_CONNECTED with f32 weights that are read and packed when the step runs, block of rows by block of rows.
#include <algorithm>
#include <limits>

#include "runtime/kernels/op_shapes.h"
#include "runtime/streamed_weights.h"
#include "runtime/tensor_buffer.h"
#include "runtime/thread_pool.h"
#include "runtime/xnnpack_handles.h"
#include "runtime/xnnpack_kernels.h"
#include "schema/byte_source.h"

namespace taskpress {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Floats of one block: what a thread reads before it packs.
constexpr int64_t kBlockFloats = int64_t{2} << 20;
// Blocks begin at multiples of this many rows, so that the tiles of all but the last are full.
constexpr int64_t kBlockAlignment = 64;
// A larger matrix is not kept for the next run.
constexpr uint64_t kMostKept = uint64_t{256} << 20;

class StreamedFullyConnected final : public Step, public StreamedMatrix {
 public:
  StreamedFullyConnected(const OpContext& context, const FullyConnectedShape& shape)
      : name_(context.in(1).name),
        shape_(shape),
        rows_(*context.streamed_rows),
        bias_(context.has_input(2) ? context.in(2).as<float>() : nullptr),
        x_(context.in(0).as<float>()),
        out_(context.out().out<float>()),
        threads_(context.threads),
        keeper_(*context.streamed_weights),
        block_rows_(std::max(kBlockFloats / shape.in / kBlockAlignment, int64_t{1}) * kBlockAlignment) {}
  ~StreamedFullyConnected() override { keeper_.Leave(*this); }
  StreamedFullyConnected(const StreamedFullyConnected&) = delete;
  StreamedFullyConnected& operator=(const StreamedFullyConnected&) = delete;

  void Forget() override { packed_.clear(); }

  Status Run() override {
    keeper_.Take(*this);
    const int64_t blocks = NumBlocks();
    const bool keeps = rows_.size() <= kMostKept;
    if (keeps && std::ssize(packed_) == blocks) return Multiply();
    const int64_t at_once = keeps ? blocks : threads_.threads();
    for (int64_t first = 0; first < blocks; first += at_once) {
      TRY(Pack(first, std::min(at_once, blocks - first)));
      TRY(Multiply());
      if (!keeps) Forget();
    }
    return {};
  }

 private:
  // The last block takes what is left over, too: XNNPACK has other kernels, which add up in another order, for a few channels.
  [[nodiscard]] int64_t NumBlocks() const { return std::max<int64_t>(1, shape_.out / block_rows_); }
  [[nodiscard]] int64_t RowsOf(int64_t block) const { return block + 1 < NumBlocks() ? block_rows_ : shape_.out - block * block_rows_; }

  // Several blocks side by side: XNNPACK packs on the thread that asks.
  Status Pack(int64_t first_block, int64_t count) {
    packed_.clear();
    std::vector<XnnOperator> packed(static_cast<size_t>(count));
    std::vector<Status> statuses(packed.size());
    threads_.ForEach(count, [&](int64_t i) {
      Result<XnnOperator> made = PackBlock(first_block + i);
      if (made) {
        packed[static_cast<size_t>(i)] = *std::move(made);
      } else {
        statuses[static_cast<size_t>(i)] = std::unexpected(std::move(made).error());
      }
    });
    for (Status& status : statuses) TRY(std::move(status));
    packed_ = std::move(packed);
    return {};
  }

  Result<XnnOperator> PackBlock(int64_t block) const {
    const int64_t first = block * block_rows_;
    const int64_t count = RowsOf(block);
    const auto in = static_cast<size_t>(shape_.in);
    const TensorBuffer floats = TRY(TensorBuffer::Make(static_cast<uint64_t>(count) * rows_.row_bytes()));
    TRY(rows_.ReadRows(first, count, floats.bytes(), {}));
    xnn_operator_t created = nullptr;
    TRY(Check(xnn_create_fully_connected_nc_f32(in, static_cast<size_t>(count), in, static_cast<size_t>(shape_.out),
                                                reinterpret_cast<const float*>(floats.data()), bias_ == nullptr ? nullptr : bias_ + first,
                                                -kInfinity, kInfinity, /*flags=*/0, /*code_cache=*/nullptr, /*weights_cache=*/nullptr,
                                                &created)));
    XnnOperator op(created);
    TRY(Check(xnn_reshape_fully_connected_nc_f32(op.get(), static_cast<size_t>(shape_.rows), ThreadsFor(count))));
    TRY(Check(xnn_setup_fully_connected_nc_f32(op.get(), x_, out_ + first)));
    return op;
  }

  Status Multiply() const {
    for (const XnnOperator& op : packed_) TRY(Check(xnn_run_operator(op.get(), ThreadsFor(block_rows_))));
    return {};
  }

  [[nodiscard]] pthreadpool* ThreadsFor(int64_t channels) const {
    return threads_.HandleFor(shape_.rows * shape_.in * channels / kProductsPerElement);
  }
  [[nodiscard]] Status Check(xnn_status status) const {
    if (status == xnn_status_success) return {};
    const ErrorCode code = status == xnn_status_out_of_memory ? ErrorCode::kOutOfMemory : ErrorCode::kXnnpackFailed;
    return Fail(code, "FULLY_CONNECTED with {}: XNNPACK: {}", name_, NameOf(status));
  }

  std::string_view name_;
  FullyConnectedShape shape_;
  const RowSource& rows_;
  const float* bias_;
  const float* x_;
  float* out_;
  const ThreadPool& threads_;
  StreamedWeights& keeper_;
  int64_t block_rows_;
  std::vector<XnnOperator> packed_;  // the blocks at hand, in order
};

}  // namespace

Result<StepPtr> MakeStreamedFullyConnected(const OpContext& context) {
  const FullyConnectedShape shape = TRY(CheckFullyConnected(context));
  if (context.has_input(2) && !context.in(2).is_constant()) return context.Unsupported("the bias of streamed weights must be constant");
  return std::make_unique<StreamedFullyConnected>(context, shape);
}

}  // namespace taskpress
