// make_checkpoint: writes a seeded Gemma 3n text checkpoint of any size (checkpoint_generator.h).
//
//   make_checkpoint --preset e2b --synthetic-tokenizer -o e2b
//   make_checkpoint --config micro-e4b/config.json --tokenizer-from micro-e4b --seed 7 -o other-micro
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <string>

#include "schema/base/output_file.h"
#include "tests/testing/checkpoint_generator.h"
#include "tests/testing/synthetic_tokenizer.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;

struct Options {
  fs::path output;
  std::string preset;
  fs::path config;
  fs::path tokenizer_from;
  bool synthetic_tokenizer = false;
  bool force = false;
  uint64_t seed = 1;
  int threads = 2;
  uint64_t shard_bytes = 5'000'000'000;
};

Status WriteText(const Options& options, const fs::path& name, std::string_view text) {
  return WriteWholeFile(options.output / name, AsBytes(text), {.replace = options.force});
}

Status CopyFiles(const Options& options, const fs::path& from, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (!fs::exists(from / name)) continue;
    const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(from / name));
    TRY(WriteText(options, name, AsText(file->bytes())));
  }
  return {};
}

Status WriteSyntheticTokenizer(const Options& options, int64_t pieces) {
  const std::string model = TRY(SyntheticTokenizerModel(pieces));
  TRY(WriteText(options, "tokenizer.model", model));
  const OrderedJson tokenizer = {{"add_bos_token", true},
                                 {"add_eos_token", false},
                                 {"bos_token", "<bos>"},
                                 {"eos_token", "<eos>"},
                                 {"pad_token", "<pad>"},
                                 {"unk_token", "<unk>"},
                                 {"tokenizer_class", "GemmaTokenizer"}};
  TRY(WriteText(options, "tokenizer_config.json", tokenizer.dump(2) + "\n"));
  const OrderedJson generation = {{"bos_token_id", 2}, {"do_sample", true},  {"eos_token_id", {1, 106}},
                                  {"pad_token_id", 0}, {"temperature", 1.0}, {"top_k", 64},
                                  {"top_p", 0.95}};
  TRY(WriteText(options, "generation_config.json", generation.dump(2) + "\n"));
  return CopyFiles(options, TASKPRESS_TEST_DATA "/micro-e4b", {"chat_template.jinja"});
}

Result<std::string> ReadConfigText(const Options& options) {
  if (!options.preset.empty()) return TRY(PresetConfig(options.preset)).dump(2) + "\n";
  const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(options.config));
  return std::string(AsText(file->bytes()));
}

Status Run(const Options& options) {
  const std::string config = TRY(ReadConfigText(options));
  const Json json = TRY(ParseJson(AsBytes(config)));
  const TextDimensions dimensions = TRY(ReadTextDimensions(json));
  std::error_code error;
  fs::create_directories(options.output, error);
  if (error) return Fail(ErrorCode::kWriteFailed, "{}: {}", options.output.string(), error.message());
  TRY(WriteText(options, "config.json", config));
  if (options.synthetic_tokenizer) TRY(WriteSyntheticTokenizer(options, dimensions.per_layer_vocabulary));
  if (!options.tokenizer_from.empty()) {
    TRY(CopyFiles(options, options.tokenizer_from,
                  {"tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
                   "chat_template.jinja"}));
  }
  return WriteWeights(options.output, MakeTextTensors(dimensions, options.seed, options.threads), options.shard_bytes, options.force);
}

}  // namespace
}  // namespace taskpress

int main(int argc, char** argv) {
  taskpress::Options options;
  CLI::App app("Writes a seeded Gemma 3n text checkpoint.");
  app.add_option("-o,--output", options.output, "folder to write")->required();
  CLI::Option_group* shape = app.add_option_group("shape");
  shape->add_option("--preset", options.preset, "micro, e2b or e4b");
  shape->add_option("--config", options.config, "config.json to follow and copy");
  shape->require_option(1);
  CLI::Option_group* tokenizer = app.add_option_group("tokenizer");
  tokenizer->add_option("--tokenizer-from", options.tokenizer_from, "folder whose tokenizer files are copied");
  tokenizer->add_flag("--synthetic-tokenizer", options.synthetic_tokenizer,
                      "make a SentencePiece model of vocab_size_per_layer_input pieces");
  tokenizer->require_option(0, 1);
  app.add_option("--seed", options.seed, "changes every value")->capture_default_str();
  app.add_option("-t,--threads", options.threads, "threads that compute values; the bytes do not depend on it")->capture_default_str();
  app.add_option("--shard-bytes", options.shard_bytes, "bytes of tensors per shard; 0: one model.safetensors")->capture_default_str();
  app.add_flag("--force", options.force, "replace files");
  CLI11_PARSE(app, argc, argv);
  const taskpress::Status status = taskpress::Run(options);
  if (status) return 0;
  std::fprintf(stderr, "make_checkpoint: %s: %s\n", taskpress::CodeName(status.error().code).c_str(), status.error().message.c_str());
  return static_cast<int>(taskpress::InfoOf(status.error().code).status);
}
