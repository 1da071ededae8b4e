// A text model that reads and writes tokens: prefill, decode, score.
//
// The session owns the KV caches and feeds the signatures as LiteRT-LM does: embeddings come from the embedder members, one row per token;
// rows of a chunk behind the last token have position 0, token 0's embedding and a mask that is closed throughout.
#ifndef TASKPRESS_RUNTIME_SESSION_H_
#define TASKPRESS_RUNTIME_SESSION_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "runtime/kernels.h"
#include "runtime/packed_weight_report.h"
#include "runtime/weight_source.h"
#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

// The members of a bundle that make up a text model. Embedders: first signature, one token id i32 in, one row f32 out ([1,1,H]; [1,1,L,P]).
// prefill_decode: see text_signatures.h.
struct TextModel {
  Graph embedder;
  std::optional<Graph> per_layer_embedder;  // needed when prefill_decode has an input per_layer_embeddings
  Graph prefill_decode;
};

class StepProfile;

struct SessionOptions {
  Kernels kernels = Kernels::kFast;
  int threads = 0;                 // 0: all CPUs of this process
  PassNames disabled_passes = {};  // of Kernels::kFast
  // The file that the graphs' constants are mapped from. With a weight_cache, matrices are packed once into that file (gigabytes for a
  // large model) and mapped from it at later starts; see Session::packed_weights(). Without one they are packed in memory.
  std::optional<WeightSource> source = {};
  std::filesystem::path weight_cache = {};
  StepProfile* profile = nullptr;  // what every step is reported to; must outlive the session
};

// A tensor of the signature `decode` that is to be looked at.
struct Tap {
  TensorId tensor = kNone;
  int32_t reader = kNone;  // the first operator that reads it
};

class Session {
 public:
  // Checks all signatures, compiles `decode` and the embedders; prefill and score signatures are compiled when they are first used, over
  // the same packed weights. kSignatureMissing, kBundleContract, kGraphShape, kKernelUnsupported, kOutOfMemory.
  static Result<Session> Create(TextModel model, SessionOptions options = {});

  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  [[nodiscard]] int32_t vocab_size() const;
  [[nodiscard]] int32_t context_length() const;
  // Tokens in the context so far: the next one gets this position.
  [[nodiscard]] int32_t position() const;
  // Forgets the context: position 0. What the caches hold stays hidden behind the masks.
  void Reset();
  // For measurements: the next token gets `position`, and the slots in front of it are written with numbers that mean nothing. A step takes
  // as long, and memory is as much, as behind a real context of that length. kContextFull when no token fits there.
  Status PretendPosition(int32_t position);
  // Forgets what came at `position` and behind it, so that several continuations can share what is before them. What the caches hold there
  // stays, behind masks, until it is written over. A position
  // that is not from 0 to position() becomes the nearest one that is.
  void Rewind(int32_t position);

  // Takes tokens into the context without computing logits. No tokens: nothing happens, so a one-token prompt is Prefill({}) and
  // Decode(token). kContextFull when they do not fit, kTokenOutOfRange; both leave the context as it was.
  Status Prefill(std::span<const int32_t> tokens);

  // Takes one token and returns the logits of the next, [vocab_size]; valid until the next call of Decode, Score or Prefill. kContextFull,
  // kTokenOutOfRange.
  Result<std::span<const float>> Decode(int32_t token);

  // The same, and on the way take(i, values of taps[i]) for every tap, whose readers must be in ascending order. The values are valid
  // during the call.
  using TakeTap = std::function<Status(size_t index, std::span<const float> values)>;
  Result<std::span<const float>> Decode(int32_t token, std::span<const Tap> taps, const TakeTap& take);

  // Takes tokens and hands over the logits after each of them, in order: row(i, logits of the token that follows tokens[i]). Uses the
  // score_<T> signatures where the bundle has them, else decode. kEmptyPrompt, kContextFull, kTokenOutOfRange, or the error that `row`
  // returns; then the context holds some of the tokens and Reset() is the way on.
  using ScoreRow = std::function<Status(int32_t index, std::span<const float> logits)>;
  Status Score(std::span<const int32_t> tokens, const ScoreRow& row);

  // What is run.
  [[nodiscard]] const TextModel& model() const;

  // Memory: KV caches, and weights in packed form, in memory of this process and in mapped files.
  [[nodiscard]] uint64_t state_bytes() const;
  // Bytes of weights that the last Decode() had no need to read, because a gate had closed their units.
  [[nodiscard]] uint64_t skipped_bytes() const;
  [[nodiscard]] uint64_t packed_weight_bytes() const;
  [[nodiscard]] PackedWeightReport packed_weights() const;
  // The main member.
  [[nodiscard]] const Graph& graph() const;

 private:
  class Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_SESSION_H_
