// activate_size FROM TO NAME: a copy of an elastic bundle with another size active.
#include <cstdio>

#include "schema/activate.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: activate_size FROM TO NAME\n", stderr);
    return 2;
  }
  const taskpress::Status done = taskpress::ActivateSize(argv[1], argv[2], argv[3], {.replace = true});
  if (!done) std::fprintf(stderr, "%s\n", done.error().message.c_str());
  return done ? 0 : 1;
}
