// How a plan file lies: a header, a table of sections, the sections. docs/deploy.md says it byte by
// byte. Little-endian; every section starts at a multiple of 64 bytes, what lies between them is zero.
#pragma once
#include <stdint.h>

#include "../infer/abi.h"
#include "dgc_plan.h"

namespace dgc_plan {

constexpr uint32_t kSchema = 1;
// As PNG's: a first byte that no text has, and line ends that a transfer as text would change.
constexpr unsigned char kMagic[8] = {0x89, 'D', 'G', 'C', '\r', '\n', 0x1a, '\n'};
constexpr int64_t kPage = 4096;      // the block starts at a multiple of it
constexpr uint32_t kMostSections = 16;
constexpr int64_t kMostText = 1 << 20;      // bytes of the origin
constexpr int64_t kMostClasses = 1 << 20;
constexpr int64_t kMostPrograms = 256;

struct FileHeader {
    unsigned char magic[8];
    uint32_t schema, abi;  // abi: kDgcAbi
    uint64_t file_bytes;
    uint32_t sections, op_bytes;
    uint64_t table_checksum;
    uint64_t unused[2];
    uint64_t checksum;  // of the bytes before it
};
static_assert(sizeof(FileHeader) == 64, "the first line of the file");

enum SectionKind : uint32_t {
    SECTION_PROGRAMS = 1,
    SECTION_BLOCK,
    SECTION_CLASSES,
    SECTION_PREPROCESSING,
    SECTION_ORIGIN,
    SECTION_END
};

struct Section {
    uint32_t kind, unused;
    uint64_t offset, bytes, checksum;
};
static_assert(sizeof(Section) == 32, "an entry of the table");

struct FileProgram {
    int64_t registers;  // 16 or 32: of the machine that it was made for; it runs on any
    int64_t precision;  // 0: float32, 1: int8
    int64_t channels, height, width;
    int64_t out_dims, out[3];
    int64_t program;  // where its DgcProgram lies in the block
};
static_assert(sizeof(FileProgram) == 80, "an entry of the programs");

}  // namespace dgc_plan
