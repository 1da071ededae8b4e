#include "schema/zstd_frame.h"

#include <zstd.h>

#include "schema/base/hash.h"

namespace taskpress {
namespace {

struct FreeDecompressor {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};
struct FreeCompressor {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

}  // namespace

struct ZstdFrameReader::State {
  std::unique_ptr<ZSTD_DCtx, FreeDecompressor> context;
  ZSTD_inBuffer input;
  ErrorCode code;
  size_t left = 1;  // 0 once the frame has ended

  Status Step(ZSTD_outBuffer& output) {
    const size_t before = input.pos + output.pos;
    left = ZSTD_decompressStream(context.get(), &output, &input);
    if (ZSTD_isError(left) != 0) return Fail(code, "zstd: {}", ZSTD_getErrorName(left));
    if (left != 0 && input.pos + output.pos == before) return Fail(code, "zstd: the frame ends early");
    return {};
  }
};

Result<ZstdFrameReader> ZstdFrameReader::Open(ByteView frame, uint64_t content_bytes, ErrorCode code) {
  const unsigned long long declared = ZSTD_getFrameContentSize(frame.data(), frame.size());
  if (declared != content_bytes) return Fail(code, "is no zstd frame of {} bytes", content_bytes);
  if (ZSTD_findFrameCompressedSize(frame.data(), frame.size()) != frame.size()) return Fail(code, "is not exactly one zstd frame");
  auto state = std::make_unique<State>(State{.context = {}, .input = {frame.data(), frame.size(), 0}, .code = code});
  state->context.reset(ZSTD_createDCtx());
  if (state->context == nullptr) return Fail(ErrorCode::kOutOfMemory, "zstd: no memory to unpack with");
  return ZstdFrameReader(std::move(state));
}

ZstdFrameReader::ZstdFrameReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
ZstdFrameReader::ZstdFrameReader(ZstdFrameReader&&) noexcept = default;
ZstdFrameReader& ZstdFrameReader::operator=(ZstdFrameReader&&) noexcept = default;
ZstdFrameReader::~ZstdFrameReader() = default;

Status ZstdFrameReader::Read(ByteSpan out) {
  ZSTD_outBuffer output{out.data(), out.size(), 0};
  while (output.pos < output.size) {
    if (state_->left == 0) return Fail(state_->code, "zstd: the frame ends early");
    TRY(state_->Step(output));
  }
  return {};
}

Status ZstdFrameReader::Finish() {
  ZSTD_outBuffer output{nullptr, 0, 0};
  if (state_->left != 0) TRY(state_->Step(output));
  if (state_->left != 0 || state_->input.pos != state_->input.size) {
    return Fail(state_->code, "zstd: the frame does not end where its content does");
  }
  return {};
}

struct ZstdFrameWriter::State {
  OutputFile& file;
  uint64_t offset;
  std::unique_ptr<ZSTD_CCtx, FreeCompressor> context;
  std::vector<std::byte> buffer;
  uint64_t bytes = 0;
  uint32_t crc = 0;

  Status Compress(ByteView content, ZSTD_EndDirective directive) {
    if (context == nullptr) return Fail(ErrorCode::kOutOfMemory, "zstd: no memory to pack with");
    ZSTD_inBuffer input{content.data(), content.size(), 0};
    for (;;) {
      ZSTD_outBuffer output{buffer.data(), buffer.size(), 0};
      const size_t left = ZSTD_compressStream2(context.get(), &output, &input, directive);
      if (ZSTD_isError(left) != 0) return Fail(ErrorCode::kOutOfMemory, "zstd: {}", ZSTD_getErrorName(left));
      const ByteView made = ByteView(buffer).first(output.pos);
      TRY(file.WriteAt(offset + bytes, made));
      crc = Crc32(crc, made);
      bytes += made.size();
      if (directive == ZSTD_e_end ? left == 0 : input.pos == input.size) return {};
    }
  }
};

ZstdFrameWriter::ZstdFrameWriter(OutputFile& file, uint64_t offset, uint64_t content_bytes, int level)
    : state_(new State{.file = file, .offset = offset, .context = {}, .buffer = std::vector<std::byte>(ZSTD_CStreamOutSize())}) {
  state_->context.reset(ZSTD_createCCtx());
  if (state_->context == nullptr) return;
  ZSTD_CCtx_setParameter(state_->context.get(), ZSTD_c_compressionLevel, level);
  ZSTD_CCtx_setPledgedSrcSize(state_->context.get(), content_bytes);
}
ZstdFrameWriter::ZstdFrameWriter(ZstdFrameWriter&&) noexcept = default;
ZstdFrameWriter& ZstdFrameWriter::operator=(ZstdFrameWriter&&) noexcept = default;
ZstdFrameWriter::~ZstdFrameWriter() = default;

Status ZstdFrameWriter::Write(ByteView bytes) { return state_->Compress(bytes, ZSTD_e_continue); }
Status ZstdFrameWriter::Finish() { return state_->Compress({}, ZSTD_e_end); }
uint64_t ZstdFrameWriter::bytes() const { return state_->bytes; }
uint32_t ZstdFrameWriter::crc32() const { return state_->crc; }

}  // namespace taskpress
