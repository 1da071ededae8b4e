// The goldens of tests/data/goldens, as tests want them: prompts, windows, slices and what another implementation made of them.
#ifndef TASKPRESS_TESTS_REFERENCE_GOLDENS_H_
#define TASKPRESS_TESTS_REFERENCE_GOLDENS_H_

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/reference/gemma3n_reference.h"
#include "tests/reference/trusting_safetensors.h"

namespace taskpress::oracle {

using Tokens = std::vector<int32_t>;

inline std::filesystem::path MicroCheckpoint() { return std::filesystem::path(TASKPRESS_TEST_DATA) / "micro-e4b"; }

inline nlohmann::json ReadGoldenJson(const std::string& name) {
  std::ifstream file(std::filesystem::path(TASKPRESS_TEST_DATA) / "goldens" / name);
  return nlohmann::json::parse(file);
}

// name: "e4b" (the whole micro checkpoint), "e2b" or "mixed".
inline MatformerSlice GoldenSlice(const std::string& name) {
  if (name == "e4b") return {};
  const nlohmann::json slice = ReadGoldenJson("inputs.json").at("slices").at(name);
  return {.ffn_widths = slice.at("ffn"), .skipped_layers = slice.at("drop")};
}

// The tensors text-<name>.safetensors holds; README.md beside the file names them.
inline TrustingSafetensors GoldenTensors(const std::string& name) {
  return TrustingSafetensors::Open(std::filesystem::path(TASKPRESS_TEST_DATA) / "goldens" / ("text-" + name + ".safetensors"));
}

inline std::vector<Tokens> GoldenPrompts() { return ReadGoldenJson("inputs.json").at("prompts"); }
inline std::vector<Tokens> GoldenWindows() { return ReadGoldenJson("inputs.json").at("windows"); }
// 32 ids for every prompt.
inline std::vector<Tokens> GoldenGreedy(const std::string& name) {
  return ReadGoldenJson("goldens.json").at("models").at(name).at("greedy");
}

}  // namespace taskpress::oracle

#endif  // TASKPRESS_TESTS_REFERENCE_GOLDENS_H_
