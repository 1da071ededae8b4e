// A checkpoint that takes long enough to be met in the middle of its conversion.
#ifndef TASKPRESS_TESTS_E2E_WIDE_CHECKPOINT_H_
#define TASKPRESS_TESTS_E2E_WIDE_CHECKPOINT_H_

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/reference/goldens.h"
#include "tests/testing/checkpoint_generator.h"
#include "tests/testing/raw_files.h"

namespace taskpress::testing {

// The shape of the micro checkpoint, wider: about 100 MB, in `folder`/wide.
inline std::filesystem::path MakeWideCheckpoint(const TempFolder& folder) {
  namespace fs = std::filesystem;
  const fs::path wide = folder.path() / "wide";
  fs::create_directory(wide);
  OrderedJson config = PresetConfig("micro").value();
  config["text_config"]["hidden_size"] = 512;
  config["text_config"]["intermediate_size"] = 2048;
  config["eos_token_id"] = {1, 10};
  folder.Write("wide/config.json", config.dump());
  for (const char* file : {"tokenizer.model", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"}) {
    fs::copy(oracle::MicroCheckpoint() / file, wide / file);
  }
  const TextDimensions dimensions = ReadTextDimensions(Json(config)).value();
  EXPECT_TRUE(WriteWeights(wide, MakeTextTensors(dimensions, 1, 2), 0, false).has_value());
  EXPECT_GT(fs::file_size(wide / "model.safetensors"), 90'000'000U);
  return wide;
}

}  // namespace taskpress::testing

#endif  // TASKPRESS_TESTS_E2E_WIDE_CHECKPOINT_H_
