// The text model of Gemma 3n on one page, straight from a Hugging Face checkpoint: the oracle for everything else.
//
// Plain loops, float32 values, sums in double. It shares no code with converter/ or runtime/, has no KV cache (every position sees
// the whole sequence under its mask) and no quantization, and believes the checkpoint. Weights stay mapped as they are stored
// (BF16 or F32); rows become float when a product needs them. Broken input throws, which fails the test that gave it.
#ifndef TASKPRESS_TESTS_REFERENCE_GEMMA3N_REFERENCE_H_
#define TASKPRESS_TESTS_REFERENCE_GEMMA3N_REFERENCE_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

namespace taskpress::oracle {

// A MatFormer sub-model of the stored one. Layers are counted as in the checkpoint.
struct MatformerSlice {
  std::vector<int64_t> ffn_widths;      // one per kept layer; empty: as stored
  std::vector<int64_t> skipped_layers;  // ascending
};

class Gemma3nReference {
 public:
  // What to look at when logits differ. T tokens, L kept layers, A AltUp streams, H hidden, P per-layer input width.
  struct Trace {
    std::vector<float> embedding;            // [T, H], scaled
    std::vector<float> per_layer_inputs;     // [T, L, P]
    std::vector<std::vector<float>> layers;  // L times [A, T, H], the streams that leave the layer
    std::vector<float> final_hidden;         // [T, H], normed, what the head multiplies
  };

  static std::unique_ptr<Gemma3nReference> Open(const std::filesystem::path& folder, const MatformerSlice& slice = {});
  ~Gemma3nReference();

  // Logits [T, vocabulary rows] of every position, soft-capped if the configuration says so.
  [[nodiscard]] std::vector<float> Forward(std::span<const int32_t> tokens, Trace* trace = nullptr) const;

  [[nodiscard]] int64_t vocabulary() const;
  [[nodiscard]] int64_t layers() const;
  [[nodiscard]] int64_t hidden() const;

 private:
  struct Model;
  explicit Gemma3nReference(std::unique_ptr<const Model> model);
  std::unique_ptr<const Model> model_;
};

}  // namespace taskpress::oracle

#endif  // TASKPRESS_TESTS_REFERENCE_GEMMA3N_REFERENCE_H_
