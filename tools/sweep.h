// Several recipes for one checkpoint, each converted and measured.
#ifndef TASKPRESS_TOOLS_SWEEP_H_
#define TASKPRESS_TOOLS_SWEEP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "schema/base/error.h"
#include "tools/convert.h"

namespace taskpress {

struct SweepArguments {
  bool sweep = false;
  // "NAME", "FILE.toml", "2.2G" (a size) or "4.6bpw", each with ":METHOD" behind it or without; empty: a list that suits the calibration.
  std::vector<std::string> recipes;
  std::string text;
  int64_t window = 256;
  bool speed = false;  // measure prefill and decode, too
  bool keep = false;   // the bundles
};

// Writes sweep.md, sweep.json and sweep.html, with `keep` a bundle for each recipe, to the folder that is the only output of `arguments`.
// A recipe that fails is a row that says so; the error is returned at the end.
Result<ExitStatus> RunSweep(const ConvertArguments& arguments, const WriteArguments& how, const SweepArguments& sweep);

// What a recipe of the list asks for. kUsage.
Result<ConvertArguments> ArgumentsOfRecipe(const ConvertArguments& arguments, const std::string& recipe);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_SWEEP_H_
