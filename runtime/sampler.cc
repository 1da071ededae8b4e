#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>

namespace taskpress {
namespace {

// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014) of a counter: no state to carry, and no
// std::distribution, whose results differ between libraries.
uint64_t SplitMix64(uint64_t counter) {
  uint64_t z = counter + 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31U);
}

}  // namespace

// [0, 1) with 53 random bits.
double Sampler::NextUniform() {
  const uint64_t bits = SplitMix64(SplitMix64(options_.seed) + calls_++);
  return static_cast<double>(bits >> 11U) * 0x1p-53;
}

// `candidates_` is sorted, most likely first.
void Sampler::KeepTopP() {
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  double sum = 0.0;
  size_t kept = 0;
  while (kept < candidates_.size() && (kept == 0 || sum < options_.top_p * total)) sum += candidates_[kept++].weight;
  candidates_.resize(kept);
}

Result<int32_t> Sampler::Sample(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) return Fail(ErrorCode::kNotFinite, "the logit of token {} is {}", i, logits[i]);
    if (logits[i] > logits[best]) best = i;
  }
  if (logits.empty()) return Fail(ErrorCode::kNotFinite, "no logits to choose from");
  if (options_.temperature <= 0.0 || options_.top_k == 1) return static_cast<int32_t>(best);

  const auto likelier = [](const Candidate& a, const Candidate& b) { return a.weight > b.weight || (a.weight == b.weight && a.id < b.id); };
  const double largest = static_cast<double>(logits[best]);
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i)
    candidates_.push_back({.id = static_cast<int32_t>(i), .weight = static_cast<double>(logits[i])});
  const size_t kept = options_.top_k > 0 ? std::min(candidates_.size(), static_cast<size_t>(options_.top_k)) : candidates_.size();
  std::ranges::partial_sort(candidates_, candidates_.begin() + static_cast<std::ptrdiff_t>(kept), likelier);
  candidates_.resize(kept);
  for (Candidate& candidate : candidates_) candidate.weight = std::exp((candidate.weight - largest) / options_.temperature);
  if (options_.top_p < 1.0) KeepTopP();

  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  double rest = NextUniform() * total;
  for (const Candidate& candidate : candidates_) {
    rest -= candidate.weight;
    if (rest < 0.0) return candidate.id;
  }
  return candidates_.back().id;
}

}  // namespace taskpress
