// A short run that shows a written bundle speaks: logits are finite and differ, prefill and decode agree, and it says more than padding.
#ifndef TASKPRESS_RUNTIME_SMOKE_H_
#define TASKPRESS_RUNTIME_SMOKE_H_

#include "runtime/bundle_model.h"
#include "schema/base/error.h"

namespace taskpress {

// Runs on kernels that read the weights where they are: no packed copy, and of the KV caches only the slots that are written. Time and
// memory stay small beside those of writing the bundle.
// kSmokeFailed, kNotFinite.
Status SmokeRun(TextModel graphs, const BundleMetadata& metadata, int threads);

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_SMOKE_H_
