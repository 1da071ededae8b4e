// Starts a program as a person would and hears what it says: standard output, standard error, exit status.
#ifndef TASKPRESS_TESTS_TESTING_SUBPROCESS_H_
#define TASKPRESS_TESTS_TESTING_SUBPROCESS_H_

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tests/testing/raw_files.h"

namespace taskpress::testing {

struct Finished {
  int status = 0;  // of exit, or 1000 + the signal that ended it
  std::string out;
  std::string err;
};

struct SpawnOptions {
  std::filesystem::path output;           // standard output goes there instead
  std::optional<rlim_t> file_size_limit;  // RLIMIT_FSIZE, in bytes
};

// Streams go to files, so that the program never waits for us to read.
class Subprocess {
 public:
  explicit Subprocess(std::vector<std::string> command, const SpawnOptions& options = {}) : output_(options.output) {
    if (output_.empty()) output_ = folder_.path() / "out";
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output_.c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, (folder_.path() / "err").c_str(), O_WRONLY | O_CREAT, 0600);
    std::vector<char*> arguments;
    for (std::string& word : command) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    // There is no attribute for limits: the child inherits ours.
    struct rlimit before = {};
    getrlimit(RLIMIT_FSIZE, &before);
    struct rlimit limit = before;
    limit.rlim_cur = options.file_size_limit.value_or(before.rlim_cur);
    setrlimit(RLIMIT_FSIZE, &limit);
    const int failed = posix_spawn(&id_, command[0].c_str(), &actions, nullptr, arguments.data(), environ);
    setrlimit(RLIMIT_FSIZE, &before);
    posix_spawn_file_actions_destroy(&actions);
    EXPECT_EQ(failed, 0) << command[0];
    if (failed != 0) id_ = 0;
  }
  ~Subprocess() {
    if (id_ == 0) return;
    kill(id_, SIGKILL);
    waitpid(id_, nullptr, 0);
  }
  Subprocess(const Subprocess&) = delete;
  Subprocess& operator=(const Subprocess&) = delete;

  void Signal(int signal) const { EXPECT_EQ(kill(id_, signal), 0); }
  [[nodiscard]] bool Running() const {
    siginfo_t info = {};
    return waitid(P_PID, static_cast<id_t>(id_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
  }

  Finished Wait() {
    int raw = 0;
    while (waitpid(id_, &raw, 0) < 0 && errno == EINTR) {
    }
    id_ = 0;
    const int status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 1000 + WTERMSIG(raw);
    const bool ours = output_.parent_path() == folder_.path();
    return {.status = status, .out = ours ? ReadFileBytes(output_) : "", .err = ReadFileBytes(folder_.path() / "err")};
  }

 private:
  TempFolder folder_;
  std::filesystem::path output_;
  pid_t id_ = 0;
};

}  // namespace taskpress::testing

#endif  // TASKPRESS_TESTS_TESTING_SUBPROCESS_H_
