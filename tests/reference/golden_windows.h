// Likelihoods of held-out text, token by token, against transformers: a few windows for every build, all of them for the patient.
#ifndef TASKPRESS_TESTS_REFERENCE_GOLDEN_WINDOWS_H_
#define TASKPRESS_TESTS_REFERENCE_GOLDEN_WINDOWS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

#include "tests/reference/goldens.h"

namespace taskpress::oracle {

// -log softmax(logits)[id]
inline double NegativeLogLikelihood(std::span<const float> logits, int32_t id) {
  const auto largest = static_cast<double>(*std::ranges::max_element(logits));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return std::log(sum) + largest - static_cast<double>(logits[static_cast<size_t>(id)]);
}

// Expects windows [0, count) of the named size to agree; returns the mean over their tokens.
inline double CompareGoldenWindows(const std::string& name, size_t count) {
  const std::unique_ptr<Gemma3nReference> model = Gemma3nReference::Open(MicroCheckpoint(), GoldenSlice(name));
  const TrustingSafetensors tensors = GoldenTensors(name);
  const StoredTensor& golden = tensors.Get("windows.nll");  // [48, 255]
  const std::vector<Tokens> windows = GoldenWindows();
  const auto width = static_cast<size_t>(model->vocabulary());
  double mean = 0;
  for (size_t w = 0; w < count; ++w) {
    std::vector<float> expected(static_cast<size_t>(golden.columns()));
    golden.ReadRow(static_cast<int64_t>(w), 0, expected);
    const std::vector<float> logits = model->Forward(windows[w]);
    for (size_t t = 0; t < expected.size(); ++t) {
      const double nll = NegativeLogLikelihood(std::span(logits).subspan(t * width, width), windows[w][t + 1]);
      EXPECT_NEAR(nll, static_cast<double>(expected[t]), 5e-5) << "window " << w << ", token " << t + 1;
      mean += nll / static_cast<double>(count * expected.size());
    }
  }
  return mean;
}

}  // namespace taskpress::oracle

#endif  // TASKPRESS_TESTS_REFERENCE_GOLDEN_WINDOWS_H_
