// The options that `convert` and `plan` share, and the prepared models they ask for.
#ifndef TASKPRESS_TOOLS_CONVERT_ARGUMENTS_H_
#define TASKPRESS_TOOLS_CONVERT_ARGUMENTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "converter/conversion_plan.h"
#include "converter/fit_budget.h"
#include "converter/model_files.h"
#include "converter/prepare.h"
#include "tools/command.h"

namespace taskpress {

struct ConvertArguments {
  std::string checkpoint;
  std::vector<std::string> outputs;
  std::vector<std::string> slices;
  std::vector<std::string> elastic;
  std::vector<size_t> slice_of_output;  // [outputs] index into slices
  std::string quant = "dynamic_int4";   // a named recipe, or a file FILE.toml
  bool quant_given = false;
  std::vector<std::string> tensor_types;
  std::string method;                        // empty: what the recipe file says, absmax for named recipes
  std::string calibrate;                     // a text, or a calibration file
  std::vector<std::string> calibrate_sizes;  // NAME=FILE, of the elastic sizes
  int64_t calibration_tokens = 8192;
  std::string target_size;                // of each file, "2.2G"; the types are chosen for it
  double target_bpw = 0;                  // the same, as bits for each parameter
  std::vector<std::string> target_types;  // to choose from
  std::string sensitivity = "auto";
  std::string sensitivity_text;
  std::vector<std::string> folds;  // "none", "auto", or names; empty: as the method has it
  std::string window = "gather";
  std::string lora;
  int64_t context = 4096;
  std::string prefill;
  std::string modalities = "text";
  bool score_signature = false;
  int threads = 0;
  std::string memory_limit = "1G";
  bool json = false;
};

// Positional checkpoint, -o, and everything that decides what is written and with how much memory.
void AddConvertOptions(CLI::App& verb, const std::shared_ptr<ConvertArguments>& arguments, bool output_required);

// The models asked for, over one opening of the checkpoint.
struct PreparedJobs {
  std::unique_ptr<const ModelFiles> files;
  std::vector<std::string> slices;    // [models]
  std::vector<PreparedModel> models;  // one per slice
  std::vector<BundleJob> jobs;        // [models]
  std::vector<BudgetFit> budgets;     // [models] where a size was asked for; else empty
};
Result<PreparedJobs> PrepareJobs(const ConvertArguments& arguments);

// What a size came to, one a model. Empty where none was asked for.
std::string BudgetText(const PreparedJobs& prepared);
OrderedJson BudgetJson(const BudgetFit& budget);

// "1G", "2.2G", "256M", "300000000"; a fraction of a byte is dropped. kUsage.
Result<uint64_t> ParseBytes(std::string_view option, const std::string& text);
// The same; kUsage below kLeastMemoryLimit, too.
Result<uint64_t> ParseMemoryLimit(const std::string& text);
// Options that decide the bytes, by name, for the lock file.
std::vector<std::pair<std::string, std::string>> RecordedOptions(const ConvertArguments& arguments);

}  // namespace taskpress

#endif  // TASKPRESS_TOOLS_CONVERT_ARGUMENTS_H_
