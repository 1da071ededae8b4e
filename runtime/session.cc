#include "runtime/session.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <vector>

#include "runtime/executor.h"
#include "runtime/shared_runtime.h"
#include "runtime/text_inputs.h"
#include "runtime/text_signatures.h"

namespace taskpress {
namespace {

// A signature and its executor, made at first use.
struct Runner {
  TextSignature signature;
  std::optional<Executor> executor;
};

}  // namespace

class Session::Impl {
 public:
  explicit Impl(TextModel model) : model_(std::move(model)) {}

  Status Initialize(SessionOptions options);
  void ClearStates();
  void Reset();
  Status PretendPosition(int64_t position);
  void WriteSlots(size_t state, int64_t slots);
  void JoinPages(int64_t begin, int64_t end);
  const Graph& graph() const { return model_.prefill_decode; }
  void Rewind(int64_t position) { position_ = std::clamp<int64_t>(position, 0, position_); }
  Status Prefill(std::span<const int32_t> tokens);
  Result<std::span<const float>> Decode(int32_t token);
  Result<std::span<const float>> Decode(int32_t token, std::span<const Tap> taps, const TakeTap& take);
  const TextModel& model() const { return model_; }
  Status Score(std::span<const int32_t> tokens, const ScoreRow& row);

  int64_t vocab_size() const { return vocab_size_; }
  int64_t context_length() const { return context_length_; }
  int64_t position() const { return position_; }
  uint64_t state_bytes() const;
  uint64_t skipped_bytes() const { return decode_.executor ? decode_.executor->skipped_bytes() : 0; }
  PackedWeightReport packed_weights() const { return shared_->packed_weights().report(); }

 private:
  Status PackForLaterStarts();
  Status CheckTokens(std::span<const int32_t> tokens) const;
  Runner& ChooseRunner(std::vector<Runner>& chunks, int64_t rest);
  Result<Executor*> ExecutorOf(Runner& runner);
  Status RunChunk(Runner& runner, std::span<const int32_t> tokens);

  TextModel model_;
  std::unique_ptr<SharedRuntime> shared_;
  std::vector<TensorBuffer> states_;
  // Where the slots of a cache are: in each of `parts` parts, context_length_ of `bytes` bytes.
  struct Slots {
    int64_t parts;
    int64_t bytes;
  };
  std::vector<Slots> slots_;  // [states]
  std::optional<TextInputs> inputs_;
  Runner decode_;
  std::vector<Runner> prefill_;  // ascending T
  std::vector<Runner> score_;    // ascending T
  int64_t vocab_size_ = 0;
  int64_t context_length_ = 0;
  int64_t position_ = 0;
};

Status Session::Impl::Initialize(SessionOptions options) {
  shared_ = TRY(SharedRuntime::Create({.kernels = options.kernels,
                                       .threads = options.threads,
                                       .disabled_passes = std::move(options.disabled_passes),
                                       .source = std::move(options.source),
                                       .weight_cache = std::move(options.weight_cache),
                                       .profile = options.profile}));
  TRY(ValidateGraph(model_.prefill_decode));
  TextSignatures signatures = TRY(FindTextSignatures(model_.prefill_decode));
  vocab_size_ = signatures.vocab_size;
  context_length_ = signatures.context_length;
  inputs_ = TRY(TextInputs::Create(model_, signatures, *shared_));
  // Slots of the caches that no token has reached take no memory.
  for (const StateTensor& state : signatures.states) {
    const auto axis = std::ranges::find(state.shape, context_length_);
    const auto parts = std::accumulate(state.shape.begin(), axis, int64_t{1}, std::multiplies());
    states_.push_back(TRY(TensorBuffer::Make(NumBytes(state.type, state.shape).value_or(0), Pages::kSmall)));
    slots_.push_back({.parts = parts, .bytes = static_cast<int64_t>(states_.back().size()) / parts / context_length_});
  }
  ClearStates();
  decode_.signature = std::move(signatures.decode);
  for (TextSignature& signature : signatures.prefill) prefill_.push_back({.signature = std::move(signature), .executor = {}});
  for (TextSignature& signature : signatures.score) score_.push_back({.signature = std::move(signature), .executor = {}});
  TRY(ExecutorOf(decode_));
  return PackForLaterStarts();
}

// A file of packed weights is written once, so everything that any signature needs goes into it.
Status Session::Impl::PackForLaterStarts() {
  if (shared_->packed_weights().writing()) {
    for (std::vector<Runner>* runners : {&prefill_, &score_}) {
      for (Runner& runner : *runners) {
        TRY(ExecutorOf(runner));
        runner.executor.reset();  // its arena may be large, and nobody may ask for it
      }
    }
  }
  shared_->packed_weights().Seal();
  return {};
}

void Session::Impl::ClearStates() {
  for (TensorBuffer& state : states_) state.Zero();
}

// Fused attention does not look at what the mask hides. Operators multiply it by 0, which must not meet a NaN of an earlier context.
void Session::Impl::Reset() {
  if (shared_->kernels() != Kernels::kFast) ClearStates();
  position_ = 0;
}

Status Session::Impl::PretendPosition(int64_t position) {
  if (position < 0 || position >= context_length_) {
    return Fail(ErrorCode::kContextFull, "position {} is outside a context of {}", position, context_length_);
  }
  // Memory that nobody wrote is one page of zeros, which stays in the first cache: reading it would take no time.
  for (size_t i = 0; i < states_.size(); ++i) WriteSlots(i, position);
  JoinPages(0, position);
  position_ = position;
  return {};
}

// All bits of a byte alike make small numbers of any type.
void Session::Impl::WriteSlots(size_t state, int64_t slots) {
  const Slots& at = slots_[state];
  for (int64_t part = 0; part < at.parts; ++part) {
    std::memset(states_[state].data() + part * context_length_ * at.bytes, 0x3C, static_cast<size_t>(slots * at.bytes));
  }
}

// Caches have small pages, so that slots that no token has reached take no memory; slots [0, end) are written.
void Session::Impl::JoinPages(int64_t begin, int64_t end) {
  for (size_t i = 0; i < states_.size(); ++i) {
    for (int64_t part = 0; part < slots_[i].parts; ++part) {
      const int64_t first = part * context_length_;
      states_[i].JoinPages(static_cast<uint64_t>((first + begin) * slots_[i].bytes),
                           static_cast<uint64_t>((first + end) * slots_[i].bytes));
    }
  }
}

uint64_t Session::Impl::state_bytes() const {
  uint64_t bytes = 0;
  for (const TensorBuffer& state : states_) bytes += state.size();
  return bytes;
}

Status Session::Impl::CheckTokens(std::span<const int32_t> tokens) const {
  const auto count = static_cast<int64_t>(tokens.size());
  if (count > context_length_ - position_) {
    return Fail(ErrorCode::kContextFull, "{} tokens at position {} do not fit a context of {}", count, position_, context_length_);
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocab_size_) {
      return Fail(ErrorCode::kTokenOutOfRange, "token {} is outside [0, {})", token, vocab_size_);
    }
  }
  return {};
}

Result<Executor*> Session::Impl::ExecutorOf(Runner& runner) {
  if (!runner.executor) {
    std::vector<ExternalBuffer> externals;
    for (const TextSignature::State& state : runner.signature.states) {
      externals.push_back({.input = state.input, .output = state.output, .bytes = states_[state.index].bytes()});
    }
    runner.executor = TRY(Executor::Create(model_.prefill_decode, runner.signature.subgraph, *shared_, externals));
  }
  return &*runner.executor;
}

// The largest chunk that is filled by the remaining tokens. For a remainder, the smallest chunk that holds it, if its empty rows cost less
// than decoding token by token. A chunk must end inside the context: DYNAMIC_UPDATE_SLICE would move it back over valid rows.
Runner& Session::Impl::ChooseRunner(std::vector<Runner>& chunks, int64_t rest) {
  // One decode step takes about as long as four more rows of a prefill chunk (Gemma 3n E2B, two threads: 60 ms and 13 ms).
  constexpr int64_t kRowsPerDecode = 4;
  const int64_t room = context_length_ - position_;
  Runner* filled = nullptr;
  Runner* padded = nullptr;
  for (Runner& chunk : chunks) {
    const int64_t tokens = chunk.signature.tokens;
    if (tokens > room) break;
    if (tokens <= rest) filled = &chunk;
    if (tokens > rest && padded == nullptr) padded = &chunk;
  }
  if (filled != nullptr) return *filled;
  if (padded != nullptr && padded->signature.tokens <= kRowsPerDecode * rest) return *padded;
  return decode_;
}

Status Session::Impl::RunChunk(Runner& runner, std::span<const int32_t> tokens) {
  Executor* executor = TRY(ExecutorOf(runner));
  TRY(inputs_->Fill(*executor, runner.signature, tokens, position_));
  TRY(executor->Run());
  JoinPages(position_, position_ + static_cast<int64_t>(tokens.size()));
  position_ += static_cast<int64_t>(tokens.size());
  return {};
}

Status Session::Impl::Prefill(std::span<const int32_t> tokens) {
  TRY(CheckTokens(tokens));
  while (!tokens.empty()) {
    Runner& runner = ChooseRunner(prefill_, static_cast<int64_t>(tokens.size()));
    const size_t count = std::min(tokens.size(), static_cast<size_t>(runner.signature.tokens));
    TRY(RunChunk(runner, tokens.first(count)));
    tokens = tokens.subspan(count);
  }
  return {};
}

Result<std::span<const float>> Session::Impl::Decode(int32_t token) {
  const std::span<const int32_t> one(&token, 1);
  TRY(CheckTokens(one));
  TRY(RunChunk(decode_, one));
  return decode_.executor->OutputAs<float>(decode_.signature.logits);
}

// A tap is read when every step before its reader has run: then its memory is written, and not yet another tensor's.
Result<std::span<const float>> Session::Impl::Decode(int32_t token, std::span<const Tap> taps, const TakeTap& take) {
  if (shared_->kernels() == Kernels::kFast) {
    return Fail(ErrorCode::kKernelUnsupported,
                "fused steps keep the values between their operators to themselves; use the xnnpack kernels");
  }
  const std::span<const int32_t> one(&token, 1);
  TRY(CheckTokens(one));
  Executor* executor = TRY(ExecutorOf(decode_));
  TRY(inputs_->Fill(*executor, decode_.signature, one, position_));
  const std::span<const StepInfo> steps = executor->steps();
  size_t step = 0;
  for (size_t i = 0; i < taps.size(); ++i) {
    size_t end = step;
    while (end < steps.size() && steps[end].op < taps[i].reader) ++end;
    TRY(executor->RunSteps(step, end));
    step = end;
    TRY(take(i, executor->ValueAs<float>(taps[i].tensor)));
  }
  TRY(executor->RunSteps(step, steps.size()));
  executor->CopyStatesBack();
  ++position_;
  return executor->OutputAs<float>(decode_.signature.logits);
}

Status Session::Impl::Score(std::span<const int32_t> tokens, const ScoreRow& row) {
  if (tokens.empty()) return Fail(ErrorCode::kEmptyPrompt, "nothing to score");
  TRY(CheckTokens(tokens));
  int32_t index = 0;
  while (!tokens.empty()) {
    Runner& runner = ChooseRunner(score_, static_cast<int64_t>(tokens.size()));
    const size_t count = std::min(tokens.size(), static_cast<size_t>(runner.signature.tokens));
    TRY(RunChunk(runner, tokens.first(count)));
    tokens = tokens.subspan(count);
    const std::span<const float> logits = runner.executor->OutputAs<float>(runner.signature.logits);
    const auto width = static_cast<size_t>(vocab_size_);
    for (size_t i = 0; i < count; ++i) TRY(row(index++, logits.subspan(i * width, width)));
  }
  return {};
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Result<Session> Session::Create(TextModel model, SessionOptions options) {
  auto impl = std::make_unique<Impl>(std::move(model));
  TRY(impl->Initialize(std::move(options)));
  return Session(std::move(impl));
}

int32_t Session::vocab_size() const { return static_cast<int32_t>(impl_->vocab_size()); }
int32_t Session::context_length() const { return static_cast<int32_t>(impl_->context_length()); }
int32_t Session::position() const { return static_cast<int32_t>(impl_->position()); }
uint64_t Session::state_bytes() const { return impl_->state_bytes(); }
uint64_t Session::skipped_bytes() const { return impl_->skipped_bytes(); }
uint64_t Session::packed_weight_bytes() const { return impl_->packed_weights().anonymous_bytes + impl_->packed_weights().mapped_bytes; }
PackedWeightReport Session::packed_weights() const { return impl_->packed_weights(); }
const Graph& Session::graph() const { return impl_->graph(); }
void Session::Reset() { impl_->Reset(); }
Status Session::PretendPosition(int32_t position) { return impl_->PretendPosition(position); }
void Session::Rewind(int32_t position) { impl_->Rewind(position); }
Status Session::Prefill(std::span<const int32_t> tokens) { return impl_->Prefill(tokens); }
Result<std::span<const float>> Session::Decode(int32_t token) { return impl_->Decode(token); }
Result<std::span<const float>> Session::Decode(int32_t token, std::span<const Tap> taps, const TakeTap& take) {
  return impl_->Decode(token, taps, take);
}
const TextModel& Session::model() const { return impl_->model(); }
Status Session::Score(std::span<const int32_t> tokens, const ScoreRow& row) { return impl_->Score(tokens, row); }

}  // namespace taskpress
