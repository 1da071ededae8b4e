// Chooses the next token from a row of logits. Same logits, options and number of the call: same token, on every machine and library.
#ifndef TASKPRESS_RUNTIME_SAMPLER_H_
#define TASKPRESS_RUNTIME_SAMPLER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "schema/base/error.h"

namespace taskpress {

struct SamplerOptions {
  double temperature = 0.0;  // 0: the most likely token, always
  int top_k = 0;             // keep the k most likely tokens; 0: all
  double top_p = 1.0;        // of those, keep the most likely ones whose probabilities first add up to p
  uint64_t seed = 0;
};

class Sampler {
 public:
  explicit Sampler(SamplerOptions options) : options_(options) {}

  // Ties go to the lowest id. kNotFinite when a logit is NaN or infinite.
  Result<int32_t> Sample(std::span<const float> logits);

 private:
  struct Candidate {
    int32_t id;
    double weight;  // logit, then unnormalised probability
  };
  double NextUniform();
  void KeepTopP();

  SamplerOptions options_;
  uint64_t calls_ = 0;
  std::vector<Candidate> candidates_;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_SAMPLER_H_
