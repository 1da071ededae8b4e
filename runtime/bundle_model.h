// From a bundle to what a session needs: every section verified, the members' contract checked, metadata linted against the tokenizer.
#ifndef TASKPRESS_RUNTIME_BUNDLE_MODEL_H_
#define TASKPRESS_RUNTIME_BUNDLE_MODEL_H_

#include <string_view>

#include "runtime/session.h"
#include "schema/base/error.h"
#include "schema/bundle.h"
#include "schema/metadata.h"
#include "schema/text_contract.h"
#include "schema/tokenizer.h"

namespace taskpress {

struct BundleModel {
  TextModel graphs;
  TextContract contract;
  BundleMetadata metadata;  // ids and texts of all tokens filled in
  Tokenizer tokenizer;
};

// kBundleSectionMissing, and the errors of ReadTflite, CheckTextContract, DecodeMetadata, Tokenizer::FromModel and LintMetadata, each with
// the section's name in front.
// `size`: of an elastic bundle, by name, kUsage when there is none such; empty: the active one.
Result<BundleModel> LoadBundleModel(const Bundle& bundle, std::string_view size = {});

// Completes tokens that the metadata gives by text only, or by id only.
Status ResolveTokens(BundleMetadata& metadata, const Tokenizer& tokenizer);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_BUNDLE_MODEL_H_
