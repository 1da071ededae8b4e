// The taskpress program, and what tests of the command line ask again and again.
#ifndef TASKPRESS_TESTS_E2E_COMMAND_LINE_H_
#define TASKPRESS_TESTS_E2E_COMMAND_LINE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "schema/json.h"
#include "tests/reference/goldens.h"
#include "tests/testing/subprocess.h"

namespace taskpress::testing {

inline std::vector<std::string> TaskpressCommand(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), TASKPRESS_BINARY);
  return arguments;
}

inline Finished Taskpress(std::vector<std::string> arguments, const SpawnOptions& options = {}) {
  return Subprocess(TaskpressCommand(std::move(arguments)), options).Wait();
}

// The command must succeed and its standard output must be one JSON document, and nothing else.
inline nlohmann::json TaskpressJson(std::vector<std::string> arguments) {
  arguments.emplace_back("--json");
  const Finished finished = Taskpress(arguments);
  EXPECT_EQ(finished.status, 0) << finished.err;
  return nlohmann::json::parse(finished.out);
}

inline std::string Micro() { return oracle::MicroCheckpoint().string(); }

// Names in a folder, sorted.
inline std::set<std::string> NamesIn(const std::filesystem::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

// A copy to be damaged.
inline std::filesystem::path CopyMicro(const TempFolder& folder, const std::string& name = "micro") {
  const std::filesystem::path copy = folder.path() / name;
  std::filesystem::copy(oracle::MicroCheckpoint(), copy);
  return copy;
}

}  // namespace taskpress::testing

#endif  // TASKPRESS_TESTS_E2E_COMMAND_LINE_H_
