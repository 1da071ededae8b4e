#include "runtime/bundle_model.h"

#include "schema/metadata_lint.h"
#include "schema/tflite.h"

namespace taskpress {
namespace {

Result<const Section*> Require(const Bundle& bundle, SectionKind kind) {
  const Section* section = bundle.Find(kind);
  if (section == nullptr) return Fail(ErrorCode::kBundleSectionMissing, "{}: section \"{}\" is missing", bundle.path, InfoOf(kind).name);
  return section;
}

template <typename T>
Result<T> InSection(const Bundle& bundle, SectionKind kind, Result<T> result) {
  if (result) return result;
  return std::unexpected(WithContext(std::move(result).error(), Format("{}: section \"{}\"", bundle.path, InfoOf(kind).name)));
}

Result<Graph> ReadMember(const Bundle& bundle, SectionKind kind) {
  return InSection(bundle, kind, ReadTflite(TRY(Require(bundle, kind))->bytes));
}

Result<Graph> ReadSize(const Bundle& bundle, std::string_view name) {
  if (name.empty()) return ReadMember(bundle, SectionKind::kPrefillDecode);
  const BundleSize& size = *TRY(bundle.FindSize(name));
  Result<Graph> graph = ReadTflite(size.bytes);
  if (graph) return graph;
  return std::unexpected(WithContext(std::move(graph).error(), Format("{}: size \"{}\"", bundle.path, size.name)));
}

Status ResolveToken(TokenText& token, const Tokenizer& tokenizer) {
  if (token.id == TokenText::kNoTokenId) {
    const std::optional<int32_t> id = tokenizer.FindPiece(token.text);
    if (!id) return Fail(ErrorCode::kMetadataLint, "token \"{}\" is not in the tokenizer", token.text);
    token.id = *id;
  } else if (token.text.empty() && token.id >= 0 && token.id < tokenizer.vocab_size()) {
    token.text = tokenizer.Piece(token.id);
  }
  return {};
}

}  // namespace

Status ResolveTokens(BundleMetadata& metadata, const Tokenizer& tokenizer) {
  if (metadata.start_token) TRY(ResolveToken(*metadata.start_token, tokenizer));
  for (TokenText& token : metadata.stop_tokens) TRY(ResolveToken(token, tokenizer));
  return {};
}

Result<BundleModel> LoadBundleModel(const Bundle& bundle, std::string_view size) {
  TextModel graphs;
  graphs.embedder = TRY(ReadMember(bundle, SectionKind::kEmbedder));
  graphs.prefill_decode = TRY(ReadSize(bundle, size));
  if (bundle.Find(SectionKind::kPerLayerEmbedder) != nullptr)
    graphs.per_layer_embedder = TRY(ReadMember(bundle, SectionKind::kPerLayerEmbedder));
  const Graph* per_layer = graphs.per_layer_embedder ? &*graphs.per_layer_embedder : nullptr;
  Result<TextContract> contract = CheckTextContract(graphs.embedder, per_layer, graphs.prefill_decode);
  if (!contract) return std::unexpected(WithContext(std::move(contract).error(), bundle.path));

  std::vector<std::byte> scratch;
  const ByteView model_proto = TRY(ViewOrRead(*TRY(Require(bundle, SectionKind::kTokenizer))->bytes, scratch));
  Tokenizer tokenizer = TRY(InSection(bundle, SectionKind::kTokenizer, Tokenizer::FromModel(model_proto)));
  const ByteView message = TRY(ViewOrRead(*TRY(Require(bundle, SectionKind::kMetadata))->bytes, scratch));
  BundleMetadata metadata = TRY(InSection(bundle, SectionKind::kMetadata, DecodeMetadata(bundle.container, message)));
  TRY(InSection(bundle, SectionKind::kMetadata, ResolveTokens(metadata, tokenizer)));
  TRY(InSection(bundle, SectionKind::kMetadata, LintMetadata(metadata, tokenizer)));
  if (metadata.max_num_tokens > contract->context) {
    return Fail(ErrorCode::kMetadataLint, "{}: metadata promises {} tokens, the model's context has {}", bundle.path,
                metadata.max_num_tokens, contract->context);
  }
  return BundleModel{
      .graphs = std::move(graphs), .contract = *std::move(contract), .metadata = std::move(metadata), .tokenizer = std::move(tokenizer)};
}

}  // namespace taskpress
