#include "converter/prepare.h"

#include <algorithm>

#include "converter/chat_metadata.h"
#include "converter/choose_folds.h"
#include "converter/elastic.h"
#include "converter/lora.h"
#include "converter/matformer.h"
#include "converter/model_family.h"
#include "runtime/bundle_model.h"
#include "schema/metadata_lint.h"
#include "schema/tokenizer.h"

namespace taskpress {
namespace {

constexpr int64_t kLongestShortPrefill = 32;
constexpr int64_t kShortPrefill = 8;

}  // namespace

Result<std::vector<int64_t>> PrefillLengths(std::vector<int64_t> asked_for, int64_t context) {
  for (const int64_t length : asked_for) {
    if (length < 1 || length > context)
      return Fail(ErrorCode::kUsage, "prefill length {}: from 1 to the context of {} is possible", length, context);
  }
  std::ranges::sort(asked_for);
  asked_for.erase(std::ranges::unique(asked_for).begin(), asked_for.end());
  if (asked_for.empty() || asked_for.front() > kLongestShortPrefill) asked_for.insert(asked_for.begin(), std::min(kShortPrefill, context));
  return asked_for;
}

int64_t ScoreLength(int64_t vocab_size, int64_t context) {
  constexpr int64_t kMaxLogits = 16 << 20;  // float32 values
  int64_t length = 128;
  while (length > 8 && length * vocab_size > kMaxLogits) length /= 2;
  return std::min(length, context);
}

namespace {

// Weights once, whoever names them.
std::vector<std::filesystem::path> InputsOf(const ModelFiles& files, const Checkpoint& merged, const PrepareOptions& options) {
  std::vector<std::filesystem::path> inputs = files.files();
  const std::vector<std::filesystem::path> weights = merged.files();
  std::ranges::copy_if(weights, std::back_inserter(inputs),
                       [&](const std::filesystem::path& path) { return std::ranges::find(inputs, path) == inputs.end(); });
  std::error_code ignored;
  if (std::filesystem::is_regular_file(options.slice, ignored)) inputs.emplace_back(options.slice);
  return inputs;
}

// An adapter may change weights that the text model does not have or never reads; that is said, and an adapter of nothing else is refused.
Status NoteAdapterEffect(std::span<const std::string> changed, const TextConfig& config, const std::filesystem::path& adapter,
                         std::vector<std::string>& notes) {
  std::vector<std::string> unread;
  std::ranges::copy_if(changed, std::back_inserter(unread), [&](const std::string& name) { return !TextModelReads(config, name); });
  if (unread.size() == changed.size()) {
    return Fail(ErrorCode::kLoraAdapter, "{}: none of its {} targets is read by the text model", adapter.string(), changed.size());
  }
  notes.push_back(Format("{} matrices merged from the adapter {}", changed.size() - unread.size(), adapter.string()));
  for (const std::string& name : unread)
    notes.push_back(Format("the adapter's change of {} has no effect: the text model does not read it", name));
  return {};
}

// A calibration must be of the very tensors that it is used for.
Status CheckFingerprint(const std::shared_ptr<const Calibration>& calibration, const std::string& fingerprint, const std::string& slice) {
  if (calibration == nullptr || calibration->info().model == fingerprint) return {};
  return Fail(ErrorCode::kCalibrationMismatch, "the calibration is of model {}, this checkpoint and slice {} are {}",
              calibration->info().model, slice, fingerprint);
}

Status CheckElasticCalibrations(const std::shared_ptr<const Checkpoint>& merged, const TextConfig& stored, const PrepareOptions& options) {
  for (size_t i = 0; i < std::min(options.elastic.size(), options.elastic_calibrations.size()); ++i) {
    if (options.elastic_calibrations[i] == nullptr) continue;
    const MatformerSlice slice = TRY(ResolveSlice(options.elastic[i], stored));
    const std::shared_ptr<const Checkpoint> tensors = TRY(SliceCheckpoint(merged, stored, slice));
    TRY(CheckFingerprint(options.elastic_calibrations[i], TRY(ModelFingerprint(*tensors)), options.elastic[i]));
  }
  return {};
}

// What decided the codes, so that a resumed conversion knows it again.
std::string CalibrationSource(const PrepareOptions& options) {
  std::string source = Format("{} tokens, {}", options.calibration->info().tokens, options.calibration->info().token_hash);
  for (size_t i = 0; i < std::min(options.elastic.size(), options.elastic_calibrations.size()); ++i) {
    if (options.elastic_calibrations[i] == nullptr) continue;
    const CalibrationInfo& info = options.elastic_calibrations[i]->info();
    source += Format("; {}: {} tokens, {}", SizeName(options.elastic[i]), info.tokens, info.token_hash);
  }
  return source;
}

InputStrengths StrengthsOf(const std::shared_ptr<const Calibration>& calibration) {
  if (calibration == nullptr) return {};
  return [calibration](const std::string& weight, int64_t columns) -> Result<MeasuredInputs> {
    if (!calibration->Has(weight)) return MeasuredInputs{};
    return calibration->Measured({.weight = weight, .first_column = 0, .columns = columns, .factors = {}});
  };
}

}  // namespace

Result<PreparedModel> PrepareModel(const std::filesystem::path& checkpoint, const PrepareOptions& options) {
  const std::unique_ptr<const ModelFiles> files = TRY(OpenModelFiles(checkpoint));
  return PrepareModel(*files, checkpoint, options);
}

Result<PreparedModel> PrepareModel(const ModelFiles& files, const std::filesystem::path& checkpoint, const PrepareOptions& options) {
  const int64_t context = options.model.context;
  if (context < 1 || context > kMaxContext) return Fail(ErrorCode::kUsage, "context {}: from 1 to {} is possible", context, kMaxContext);
  const TextConfig stored = TRY(files.ReadConfig());
  const MatformerSlice slice = TRY(ResolveSlice(options.slice, stored));
  PreparedModel model;
  model.config = SliceConfig(stored, slice);
  model.source = checkpoint.string();
  model.parameters = CountParameters(model.config);
  model.notes = model.config.notes;

  MergedCheckpoint merged{.checkpoint = files.checkpoint(), .changed = {}, .notes = {}};
  if (!options.lora.empty()) merged = TRY(MergeLora(std::move(merged.checkpoint), options.lora));
  model.notes.insert(model.notes.end(), merged.notes.begin(), merged.notes.end());
  if (!merged.changed.empty()) {
    TRY(NoteAdapterEffect(merged.changed, stored, options.lora, model.notes));  // adapters are trained on the whole model
    const int64_t skipped = stored.num_hidden_layers - model.config.num_hidden_layers;
    if (skipped > 0)
      model.notes.push_back(Format("the adapter's changes of the {} layers that the slice leaves out are gone with them", skipped));
  }
  model.inputs = InputsOf(files, *merged.checkpoint, options);
  TRY(CheckElasticCalibrations(merged.checkpoint, stored, options));
  const std::shared_ptr<const Checkpoint> tensors = TRY(SliceCheckpoint(std::move(merged.checkpoint), stored, slice));
  TextWeights weights = TRY(TextWeights::Bind(tensors, model.config));
  if (options.calibration != nullptr || options.model.calibration_length) model.fingerprint = TRY(ModelFingerprint(*tensors));
  TRY(CheckFingerprint(options.calibration, model.fingerprint, options.slice));
  weights.SetCalibration(options.calibration);
  TRY(weights.ApplyRecipe(options.recipe));
  model.notes.insert(model.notes.end(), weights.notes().begin(), weights.notes().end());
  if (options.choose_folds) {
    TRY(weights.SetFolds(TRY(ChooseFolds(weights, model.config, options.fold_names, StrengthsOf(options.calibration), options.work))));
    model.notes.push_back(Format("{} folds rescale channels; the float model is the same function", weights.folds().size()));
    if (options.calibration == nullptr && !weights.folds().empty())
      model.notes.emplace_back(
          "without --calibrate, folds rest on a guess that is far off for some models; measure with taskpress compare");
  } else {
    TRY(weights.SetFolds(options.folds));
  }
  model.resolved_recipe = weights.resolved_recipe();
  model.graphs.embedder = TRY(BuildEmbedder(model.config, weights));
  if (model.config.family->has_per_layer_embedder) model.graphs.per_layer_embedder = TRY(BuildPerLayerEmbedder(model.config, weights));
  TextModelOptions text = options.model;
  if (options.score_signature) text.score_length = ScoreLength(model.config.text_vocab_size, context);
  TRY(BuildSizes(stored, slice, options, text, weights, model));
  if (options.calibration != nullptr) {
    const std::string source = CalibrationSource(options);
    model.graphs.prefill_decode.metadata.emplace_back("taskpress.calibration", source);
    for (PreparedSize& size : model.smaller) size.prefill_decode.metadata.emplace_back("taskpress.calibration", source);
  }
  const Graph* per_layer_embedder = model.graphs.per_layer_embedder ? &*model.graphs.per_layer_embedder : nullptr;
  model.contract = TRY(CheckTextContract(model.graphs.embedder, per_layer_embedder, model.graphs.prefill_decode));
  for (const PreparedSize& size : model.smaller) TRY(CheckTextContract(model.graphs.embedder, per_layer_embedder, size.prefill_decode));
  model.weights.assign(weights.handed_out().begin(), weights.handed_out().end());

  model.tokenizer = TRY(files.ReadTokenizer());
  std::vector<std::byte> scratch;
  const Tokenizer tokenizer = TRY(Tokenizer::FromModel(TRY(ViewOrRead(*model.tokenizer, scratch))));
  if (tokenizer.vocab_size() < model.config.text_vocab_size) {
    return Fail(ErrorCode::kTokenizerModel, "{}: the tokenizer has {} pieces, the model {} tokens; clients stop at an id without a piece",
                checkpoint.string(), tokenizer.vocab_size(), model.config.text_vocab_size);
  }
  ChatMetadata chat = TRY(MakeChatMetadata(TRY(files.ReadChat()), tokenizer));
  model.metadata = std::move(chat.metadata);
  model.notes.insert(model.notes.end(), chat.notes.begin(), chat.notes.end());
  model.metadata.max_num_tokens = static_cast<int32_t>(context);
  model.metadata.model_type = model.config.family->name;
  TRY(ResolveTokens(model.metadata, tokenizer));
  TRY(LintMetadata(model.metadata, tokenizer));
  return model;
}

}  // namespace taskpress
