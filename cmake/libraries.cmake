# Every library of the field that we stand on, found once.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
# libsentencepiece.so carries a protobuf 3.14 of its own and exports its symbols. A second, shared protobuf in the process makes one of the two run
# the other's code and the program aborts at start-up. So ours is static, and neither it nor what its headers leave in our objects is exported.
set(Protobuf_USE_STATIC_LIBS ON)
find_package(Protobuf REQUIRED)
foreach(library protobuf::libprotobuf protobuf::libprotobuf-lite)
  set_property(TARGET ${library} APPEND PROPERTY INTERFACE_COMPILE_OPTIONS -fvisibility=hidden)
  set_property(TARGET ${library} APPEND PROPERTY INTERFACE_LINK_OPTIONS "LINKER:--exclude-libs,libprotobuf.a:libprotobuf-lite.a")
endforeach()
find_package(TBB REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_program(FLATC flatc REQUIRED)
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(HIGHWAY REQUIRED IMPORTED_TARGET libhwy)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)

# XNNPACK ships neither a CMake package nor a pkg-config file.
find_path(XNNPACK_INCLUDE xnnpack.h REQUIRED)
find_library(XNNPACK_LIBRARY XNNPACK REQUIRED)
find_library(PTHREADPOOL_LIBRARY pthreadpool REQUIRED)
add_library(xnnpack_external INTERFACE)
target_include_directories(xnnpack_external SYSTEM INTERFACE ${XNNPACK_INCLUDE})
target_link_libraries(xnnpack_external INTERFACE ${XNNPACK_LIBRARY} ${PTHREADPOOL_LIBRARY})

# re2.pc drags every Abseil library into the link; only libre2 itself is called.
find_path(RE2_INCLUDE re2/re2.h REQUIRED)
find_library(RE2_LIBRARY re2 REQUIRED)
add_library(re2_external INTERFACE)
target_include_directories(re2_external SYSTEM INTERFACE ${RE2_INCLUDE})
target_link_libraries(re2_external INTERFACE ${RE2_LIBRARY})

# Header-only: its .pc file would link the compiled one.
find_path(TOMLPLUSPLUS_INCLUDE toml++/toml.hpp REQUIRED)
add_library(tomlplusplus_external INTERFACE)
target_include_directories(tomlplusplus_external SYSTEM INTERFACE ${TOMLPLUSPLUS_INCLUDE})

# Of libonnx its schema: the code for it is generated here and runs on our static protobuf. libonnx_proto.so holds the same classes linked to the
# shared protobuf, which must not come into the process (above), and the checker in libonnx.so takes those classes only.
find_path(ONNX_SCHEMA onnx/onnx.proto REQUIRED)
