# One interface target carries the flags of our own code: warnings, hardening, sanitizers.
add_library(taskpress_flags INTERFACE)
target_include_directories(taskpress_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(taskpress_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor -Wold-style-cast -Wswitch-enum -Werror
  -Wno-missing-field-initializers  # options are plain structs with defaults, named at the call site
  -fstack-protector-strong)
# ISO forbids statement expressions; TRY (schema/base/error.h) is our one use of them.
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(taskpress_flags INTERFACE -Wno-gnu-statement-expression)
endif()
# Results must not depend on how the compiler contracts a*b+c.
target_compile_options(taskpress_flags INTERFACE -ffp-contract=off)
if(TASKPRESS_SANITIZE)
  target_compile_options(taskpress_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(taskpress_flags INTERFACE -fsanitize=address,undefined)
  # GCC sees false uninitialised uses through its own instrumentation.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(taskpress_flags INTERFACE -Wno-maybe-uninitialized)
  endif()
else()
  target_compile_options(taskpress_flags INTERFACE $<$<CONFIG:Release>:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3>)
endif()
if(TASKPRESS_FUZZ)
  target_compile_options(taskpress_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# taskpress_room(name SOURCES ... LINKS ...): one static library per room, warnings on, includes from the project root.
function(taskpress_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;LINKS" ${ARGN})
  add_library(taskpress_${name} STATIC ${ROOM_SOURCES})
  target_link_libraries(taskpress_${name} PUBLIC taskpress_flags ${ROOM_LINKS})
endfunction()
