// One operator of a graph, bound to its memory: what kernels are made of and what an Executor runs.
//
// A kernel is a function that checks an operator's types and shapes once and returns a Step. Steps hold pointers and sizes only: running
// one allocates nothing and formats no text unless it fails.
#ifndef TASKPRESS_RUNTIME_KERNELS_STEP_H_
#define TASKPRESS_RUNTIME_KERNELS_STEP_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

class ThreadPool;
class PackedWeights;
class StreamedWeights;
struct QuantizedInput;

// A tensor and where its bytes are.
struct BoundTensor {
  std::string_view name;
  DType type = DType::kF32;
  Shape shape;
  int64_t elements = 0;
  const std::byte* data = nullptr;
  std::byte* writable = nullptr;  // null for constants
  std::span<const float> scales;  // of a quantized constant
  int64_t block_size = 0;         // columns that share a scale; 0: one for a row, or for all
  int32_t quantized_axis = 0;
  int32_t local_storage = kNone;  // kept in the scratch memory of the row region that alone uses it: one of Plan::storages,
  int64_t local_offset = 0;       // and the tensor's elements start here

  [[nodiscard]] bool is_constant() const { return writable == nullptr; }
  template <typename T>
  [[nodiscard]] const T* as() const {
    return reinterpret_cast<const T*>(data);
  }
  template <typename T>
  [[nodiscard]] T* out() const {
    return reinterpret_cast<T*>(writable);
  }
};

class Step {
 public:
  Step() = default;
  virtual ~Step() = default;
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  virtual Status Run() = 0;
  // Scratch memory that the step needs while it runs; steps run one after another and share it. Bind() is called once, before the first
  // Run().
  [[nodiscard]] virtual uint64_t workspace_bytes() const { return 0; }
  virtual Status Bind(std::byte* /*workspace*/) { return {}; }
  // Bytes of weights that the last Run() had no need to read, beside what the operators read.
  [[nodiscard]] virtual uint64_t skipped_bytes() const { return 0; }
};

// Everything a kernel may look at while it makes its Step.
struct OpContext {
  const Op& op;
  int32_t index;                           // of the op in its subgraph, for messages
  std::string_view subgraph;               // its name, for messages
  std::vector<const BoundTensor*> inputs;  // null for an absent optional input
  std::vector<const BoundTensor*> outputs;
  const ThreadPool& threads;
  PackedWeights* packed_weights = nullptr;          // only where weights may be packed
  const QuantizedInput* quantized_input = nullptr;  // the int8 copy of a FULLY_CONNECTED's input, when one is planned
  const BoundTensor* halves = nullptr;              // kInPlace: the f16 constant behind a FULLY_CONNECTED's weights, which have no bytes
  const RowSource* streamed_rows = nullptr;         // kStreamed: input 1, a matrix or table that has no bytes in memory
  StreamedWeights* streamed_weights = nullptr;      // who may keep such a matrix
  bool seldom = false;                              // a step that hardly ever runs: its weights need not stay in memory
  bool mean_of_squares = false;                     // a MEAN that squares its input itself (Plan::squared_inputs)

  [[nodiscard]] const BoundTensor& in(size_t i) const { return *inputs[i]; }
  [[nodiscard]] const BoundTensor& out() const { return *outputs[0]; }
  [[nodiscard]] bool has_input(size_t i) const { return i < inputs.size() && inputs[i] != nullptr; }
  template <typename Attributes>
  [[nodiscard]] Attributes attributes() const {
    const Attributes* found = std::get_if<Attributes>(&op.attributes);
    return found != nullptr ? *found : Attributes{};
  }

  // "decode: op 17 FULLY_CONNECTED(f32 [1,1,8] x, i4 [16,8] w) -> f32 [1,1,16] y"
  [[nodiscard]] std::string Describe() const;
  // kGraphShape: the operator contradicts itself.
  [[nodiscard]] std::unexpected<Error> Malformed(std::string_view reason) const;
  // kKernelUnsupported: TFLite allows it, this kernel does not do it.
  [[nodiscard]] std::unexpected<Error> Unsupported(std::string_view reason) const;
};

using StepPtr = std::unique_ptr<Step>;

template <typename Body>
class BodyStep final : public Step {
 public:
  explicit BodyStep(Body body) : body_(std::move(body)) {}
  Status Run() override {
    if constexpr (std::is_void_v<std::invoke_result_t<Body&>>) {
      body_();
      return {};
    } else {
      return body_();
    }
  }

 private:
  Body body_;
};

// A Step from a closure that captures pointers and sizes; returns void or Status.
template <typename Body>
StepPtr MakeStep(Body body) {
  return std::make_unique<BodyStep<Body>>(std::move(body));
}

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_KERNELS_STEP_H_
