// Metadata that loads but makes a client misbehave is found here, before it is written or when a bundle is verified.
#ifndef TASKPRESS_SCHEMA_METADATA_LINT_H_
#define TASKPRESS_SCHEMA_METADATA_LINT_H_

#include "schema/base/error.h"
#include "schema/metadata.h"
#include "schema/tokenizer.h"

namespace taskpress {

// There is a start token and at least one stop token, all inside the vocabulary and spelled as it spells them; no stop token is text that
// an answer may contain (white space, a byte, a word); the sampler's numbers make sense. A token may be given by id, by text or both.
// kMetadataLint, kStopTokenLint, kTokenOutOfRange.
Status LintMetadata(const BundleMetadata& metadata, const Tokenizer& tokenizer);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_METADATA_LINT_H_
