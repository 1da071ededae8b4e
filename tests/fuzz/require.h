// How a fuzz target says that what must hold does not.
#ifndef TASKPRESS_TESTS_FUZZ_REQUIRE_H_
#define TASKPRESS_TESTS_FUZZ_REQUIRE_H_

namespace taskpress {

inline void Require(bool condition) {
  if (!condition) __builtin_trap();
}

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_FUZZ_REQUIRE_H_
