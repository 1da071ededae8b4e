#include "schema/base/sigbus_guard.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>

namespace taskpress {
namespace {

// One per mapping. Slots are reused and never freed, so the handler may walk the list at any moment.
struct Slot {
  std::atomic<uintptr_t> begin = 0;  // 0: free. Written last when claimed, first when released.
  std::atomic<uintptr_t> end = 0;    // rounded up to a page
  std::atomic<bool> lost = false;
  Slot* next = nullptr;
};

std::atomic<Slot*> first_slot = nullptr;
std::atomic<bool> any_lost = false;
std::mutex claim_mutex;
uintptr_t page_size = 0;
struct sigaction previous_action = {};

uintptr_t Address(ByteView mapping) { return reinterpret_cast<uintptr_t>(mapping.data()); }

Slot* FindSlot(uintptr_t begin) {
  for (Slot* slot = first_slot.load(); slot != nullptr; slot = slot->next) {
    if (slot->begin.load() == begin) return slot;
  }
  return nullptr;
}

// The raw system call: sanitizers wrap mmap() in code that must not run in a signal handler.
bool ReplaceByZeros(uintptr_t begin, uintptr_t end) {
  return syscall(SYS_mmap, begin, end - begin, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != -1;
}

void PassOn(int signal, siginfo_t* info, void* context) {
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else {
    sigaction(SIGBUS, &previous_action, nullptr);  // the instruction runs again and ends the process
  }
}

extern "C" void HandleSigbus(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Slot* slot = first_slot.load(); slot != nullptr; slot = slot->next) {
    const uintptr_t begin = slot->begin.load();
    const uintptr_t end = slot->end.load();
    if (begin == 0 || address < begin || address >= end) continue;
    if (!ReplaceByZeros(address / page_size * page_size, end)) break;
    slot->lost.store(true);
    any_lost.store(true);
    errno = saved_errno;
    return;
  }
  PassOn(signal, info, context);
}

void InstallHandler() {
  page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction action = {};
  action.sa_sigaction = HandleSigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &previous_action);
}

}  // namespace

void GuardMapping(ByteView mapping) {
  static std::once_flag installed;
  std::call_once(installed, InstallHandler);
  const std::scoped_lock lock(claim_mutex);
  Slot* slot = FindSlot(0);
  if (slot == nullptr) {
    slot = new Slot{.next = first_slot.load()};
    first_slot.store(slot);
  }
  slot->lost.store(false);
  slot->end.store((Address(mapping) + mapping.size() + page_size - 1) / page_size * page_size);
  slot->begin.store(Address(mapping));
}

void ReleaseMapping(ByteView mapping) {
  const std::scoped_lock lock(claim_mutex);
  Slot* slot = FindSlot(Address(mapping));
  if (slot != nullptr) slot->begin.store(0);
}

bool LostPages(ByteView mapping) {
  const Slot* slot = FindSlot(Address(mapping));
  return slot != nullptr && slot->lost.load();
}

bool AnyPagesLost() { return any_lost.load(); }

}  // namespace taskpress
