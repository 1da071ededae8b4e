// Keeps a process alive that reads a mapped file while somebody shortens it.
//
// A page behind the file's new end, or one the disk cannot deliver, raises SIGBUS when it is touched. In a guarded range the handler puts
// zero pages in place of the rest and notes the loss: readers go on with zeros and must ask LostPages() before they believe what they read.
// SIGBUS from anywhere else goes to the handler that was there before, or ends the process as ever.
#ifndef TASKPRESS_SCHEMA_BASE_SIGBUS_GUARD_H_
#define TASKPRESS_SCHEMA_BASE_SIGBUS_GUARD_H_

#include "schema/base/bytes.h"

namespace taskpress {

// `mapping` is a whole mapping, read-only and not empty. The first call installs the handler.
void GuardMapping(ByteView mapping);
// Before munmap.
void ReleaseMapping(ByteView mapping);
// Whether zeros stand in for bytes of a guarded mapping.
[[nodiscard]] bool LostPages(ByteView mapping);
// The same for any mapping there is or was: nothing this process computed since can be trusted.
[[nodiscard]] bool AnyPagesLost();

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BASE_SIGBUS_GUARD_H_
