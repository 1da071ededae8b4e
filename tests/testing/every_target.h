// Highway chooses an instruction set when the program runs; tests of its kernels go through all of them.
#ifndef TASKPRESS_TESTS_TESTING_EVERY_TARGET_H_
#define TASKPRESS_TESTS_TESTING_EVERY_TARGET_H_

#include <gtest/gtest.h>
#include <hwy/targets.h>

namespace taskpress {

// Runs the body once for every instruction set that this machine has.
template <typename Body>
void ForEachTarget(const Body& body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(target));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_TESTING_EVERY_TARGET_H_
