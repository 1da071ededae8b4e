#include <memory>

#include "tools/convert.h"
#include "tools/sweep.h"

namespace taskpress {

Verb AddQuantize(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("quantize", "Convert with a report of every tensor's error, or try several recipes and compare them");
  const auto arguments = std::make_shared<ConvertArguments>();
  const auto how = std::make_shared<WriteArguments>();
  const auto sweep = std::make_shared<SweepArguments>();
  AddConvertOptions(*verb, arguments, true);
  AddWriteOptions(*verb, how);
  CLI::Option* flag =
      verb->add_flag("--sweep", sweep->sweep, "try several recipes; -o is a folder for sweep.md, sweep.json and sweep.html");
  verb->add_option("--recipes", sweep->recipes,
                   "what to try: names, files, sizes (2.2G) or bits per weight (4.6bpw), each with :METHOD behind it or without")
      ->delimiter(',')
      ->needs(flag);
  verb->add_option("--text", sweep->text, "a text to measure the divergence from the float model with")->needs(flag);
  verb->add_option("--eval-window", sweep->window, "tokens per window of the text")->capture_default_str()->needs(flag);
  verb->add_flag("--speed", sweep->speed, "measure prefill and decode, too")->needs(flag);
  verb->add_flag("--keep", sweep->keep, "keep the bundles")->needs(flag);
  verb->footer(
      "Examples:\n  taskpress quantize gemma-3n-E4B-it -o gemma.task --quant dynamic_int4 --method clip\n"
      "  taskpress quantize gemma-3n-E4B-it --sweep --text sample.txt --calibrate chats.jsonl -o sweep/\n"
      "  taskpress quantize gemma-3n-E4B-it --sweep --recipes dynamic_int8,dynamic_int4:clip,mixed.toml,3.2G:clip --text sample.txt -o "
      "sweep/");
  return {verb, [arguments, how, sweep] {
            if (sweep->sweep) return RunSweep(*arguments, *how, *sweep);
            WriteArguments reporting = *how;
            reporting.errors = true;
            return Convert("quantize", *arguments, reporting);
          }};
}

}  // namespace taskpress
