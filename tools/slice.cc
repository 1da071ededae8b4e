#include <chrono>
#include <iostream>
#include <memory>

#include "converter/slice_folder.h"
#include "tools/command.h"

namespace taskpress {
namespace {

struct SliceArguments {
  std::string checkpoint;
  std::string output;
  SliceFolderOptions options;
  bool json = false;
};

Result<ExitStatus> Slice(const SliceArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  const SliceFolder written = TRY(WriteSliceFolder(arguments.checkpoint, arguments.output, arguments.options));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (arguments.json) {
    PrintJson("slice", {{"output", arguments.output},
                        {"slice", arguments.options.slice},
                        {"parameters", written.text_parameters},
                        {"effective_parameters", written.effective_parameters},
                        {"tensor_bytes", written.tensor_bytes},
                        {"shards", written.shards},
                        {"seconds", seconds.count()}});
  } else {
    std::cout << Format("{}: {} text parameters, {} of them effective, {} bytes in {} shards\n", arguments.output, written.text_parameters,
                        written.effective_parameters, written.tensor_bytes, written.shards);
  }
  return ExitStatus::kOk;
}

}  // namespace

Verb AddSlice(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("slice", "Cut a smaller MatFormer model out of a Gemma 3n checkpoint, as a Hugging Face folder");
  const auto arguments = std::make_shared<SliceArguments>();
  verb->add_option("checkpoint", arguments->checkpoint, "a Hugging Face folder with safetensors")->required();
  verb->add_option("--slice", arguments->options.slice,
                   "e2b, a published name or size (\"E2.54B\"), or a JSON file {\"ffn\": .., \"skip\": [..]}")
      ->required();
  verb->add_option("-o,--output", arguments->output, "the folder to write")->required();
  verb->add_option("--shard-bytes", arguments->options.shard_bytes, "tensor bytes in one file, at most; a larger tensor has one of its own")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  verb->add_flag("--force", arguments->options.replace, "replace files that are there");
  verb->add_flag("--json", arguments->json, "one JSON document");
  verb->footer("Example:\n  taskpress slice gemma-3n-E4B-it --slice E2.54B -o gemma-3n-E2.54B-it");
  return {verb, [arguments] { return Slice(*arguments); }};
}

}  // namespace taskpress
