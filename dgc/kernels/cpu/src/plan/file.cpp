// Checks a file: every byte of it belongs to the header, the table, a section with its checksum, or is
// a zero between them; then what the sections say; then the programs (program.cpp).
#include "file.h"

#include <math.h>
#include <string.h>

#include "arithmetic.h"
#include "checksum.h"
#include "program.h"
#include "refuse.h"

namespace dgc_plan {
namespace {

constexpr const char* kNames[SECTION_END] = {"",        "programs",      "block",
                                             "classes", "preprocessing", "origin"};

bool damaged(DgcError* why, const char* what) {
    return refuse(why, DGC_INTEGRITY, "damaged: %s; copy or export the file again", what);
}

bool header_fits(const char* bytes, int64_t size, DgcError* why) {
    const FileHeader& h = *(const FileHeader*)bytes;
    if (size < int64_t(sizeof h) || memcmp(h.magic, kMagic, sizeof kMagic) != 0)
        return refuse(why, DGC_INTEGRITY, "no plan file (`dgcctl export` writes them)");
    // Before the checksum: where that lies is a matter of the schema.
    if (h.schema != kSchema)
        return refuse(why, DGC_INTEGRITY,
                      "a plan file of schema %u, and this version reads %u: export it again",
                      h.schema, kSchema);
    if (h.checksum != checksum(bytes, offsetof(FileHeader, checksum)))
        return damaged(why, "its header is not what was written");
    // A block is read as structures of this library: one of
    // another layout would be misread, however whole it is.
    if (h.abi != uint32_t(kDgcAbi) || h.op_bytes != sizeof(DgcOp))
        return refuse(why, DGC_INTEGRITY,
                      "written for kernels of version %u, and these are of %d: export it again",
                      h.abi, kDgcAbi);
    if (h.file_bytes != uint64_t(size))
        return refuse(why, DGC_INTEGRITY, "%lld bytes, and its header says %llu: copy it again",
                      (long long)size, (unsigned long long)h.file_bytes);
    if (h.unused[0] || h.unused[1] || h.sections < 1 || h.sections > kMostSections ||
        int64_t(sizeof h + h.sections * sizeof(Section)) > size)
        return damaged(why, "its header says what cannot be");
    // Only after the number of sections was found possible: it says how far this reads.
    if (h.table_checksum != checksum(bytes + sizeof h, h.sections * sizeof(Section)))
        return damaged(why, "its table of sections is not what was written");
    return true;
}

bool all_zero(const char* bytes, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i)
        if (bytes[i]) return false;
    return true;
}

// Sections follow each other in the order of their kinds, and cover the file.
bool sections_fit(const char* bytes, int64_t size, const Section* (&found)[SECTION_END],
                  DgcError* why) {
    const FileHeader& h = *(const FileHeader*)bytes;
    const Section* table = (const Section*)(bytes + sizeof h);
    int64_t end = int64_t(sizeof h + h.sections * sizeof(Section));
    uint32_t before = 0;
    for (uint32_t i = 0; i < h.sections; ++i) {
        const Section& s = table[i];
        if (s.kind <= before || s.kind >= SECTION_END || s.unused)
            return damaged(why, "a section of unknown kind, or one out of order");
        const int64_t step = s.kind == SECTION_BLOCK ? kPage : kLine;
        // No choice is left to the writer, so no byte can be in two sections, or in none.
        if (s.offset != uint64_t(parts_of(end, step) * step) || s.offset > uint64_t(size) ||
            s.bytes < 1 || s.bytes > uint64_t(size) - s.offset)
            return damaged(why, "a section that does not lie where it should");
        if (!all_zero(bytes, end, int64_t(s.offset)))
            return damaged(why, "something lies between two sections");
        if (s.checksum != checksum(bytes + s.offset, s.bytes))
            return refuse(why, DGC_INTEGRITY,
                          "damaged: the checksum of its %s differs; copy or export the file again",
                          kNames[s.kind]);
        before = s.kind, end = int64_t(s.offset + s.bytes), found[s.kind] = &s;
    }
    if (end != size) return damaged(why, "something lies behind the last section");
    if (!found[SECTION_PROGRAMS] || !found[SECTION_BLOCK])
        return damaged(why, "it has no programs");
    return true;
}

// One character of UTF-8 that is no control character: how many bytes; 0: it is none.
int64_t character(const unsigned char* p, const unsigned char* end) {
    const int more = *p < 0x80 ? 0 : *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
    if (more == 0) return *p >= 0x20 && *p != 0x7f;
    if (*p < 0xc2 || *p > 0xf4 || end - p <= more) return 0;
    uint32_t code = *p & (0x3f >> more);
    for (int i = 1; i <= more; ++i) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    constexpr uint32_t kLeast[] = {0, 0xa0, 0x800, 0x10000};  // up to 0x9f: more controls
    // Halves of surrogate pairs: no characters, and other programs stumble over them.
    const bool lone_half = code >= 0xd800 && code < 0xe000;
    return code < kLeast[more] || code > 0x10ffff || lone_half ? 0 : more + 1;
}

// Texts, each with a zero behind it.
bool classes_fit(const char* text, int64_t bytes, Contents* found, DgcError* why) {
    const unsigned char *p = (const unsigned char*)text, *end = p + bytes;
    while (p < end) {
        if (*p == 0) {
            if (++found->class_count > kMostClasses) break;
            ++p;
            continue;
        }
        const int64_t length = character(p, end);
        if (!length) return damaged(why, "a class name that is no printable UTF-8");
        p += length;
    }
    found->classes = text;
    return (p == end && text[bytes - 1] == 0) || damaged(why, "its class names do not end");
}

bool preprocessing_fits(const DgcPreprocessing& how) {
    for (int i = 0; i < 3; ++i)
        if (!isfinite(how.mean[i]) || !isfinite(how.std[i]) || how.std[i] <= 0) return false;
    return how.resize >= 0 && how.resize <= 1 << 16 && how.image_size >= 1 &&
           how.image_size <= 1 << 16 && (how.channels == 1 || how.channels == 3) && how.crop == 1;
}

bool programs_fit(Contents* found, int64_t bytes, DgcError* why) {
    found->program_count = bytes / int64_t(sizeof(FileProgram));
    if (bytes % sizeof(FileProgram) || found->program_count < 1 ||
        found->program_count > kMostPrograms)
        return damaged(why, "its list of programs has no possible length");
    for (int64_t i = 0; i < found->program_count; ++i) {
        const FileProgram& p = found->programs[i];
        const bool wide = p.registers == 32;
        if ((p.registers != 16 && !wide) || p.precision < 0 || p.precision > 1 || p.channels < 1 ||
            p.height < 1 || p.width < 1 || (p.out_dims != 1 && p.out_dims != 3) || p.out[0] < 1 ||
            p.out[1] < 1 || p.out[2] < 1 || (p.out_dims == 1 && (p.out[1] != 1 || p.out[2] != 1)))
            return damaged(why, "a program for images that cannot be");
        if (!check_program(found->block, found->block_bytes, p.program, why)) return false;
        const DgcProgram& program = *(const DgcProgram*)(found->block + p.program);
        if (times(p.channels, p.height, p.width) != program.in_floats ||
            times(p.out[0], p.out[1], p.out[2]) != program.out_floats ||
            p.precision != program.exact)
            return damaged(why, "a program that computes on other images, or otherwise, than it says");
    }
    return true;
}

}  // namespace

bool read_contents(const char* bytes, int64_t size, Contents* found, DgcError* why) {
    const Section* sections[SECTION_END] = {};
    *found = {};
    if (!header_fits(bytes, size, why) || !sections_fit(bytes, size, sections, why)) return false;
    const auto start = [&](SectionKind kind) { return bytes + sections[kind]->offset; };
    const auto length = [&](SectionKind kind) { return int64_t(sections[kind]->bytes); };
    found->block = start(SECTION_BLOCK), found->block_bytes = length(SECTION_BLOCK);
    found->programs = (const FileProgram*)start(SECTION_PROGRAMS);
    if (sections[SECTION_CLASSES] &&
        !classes_fit(start(SECTION_CLASSES), length(SECTION_CLASSES), found, why))
        return false;
    if (sections[SECTION_PREPROCESSING]) {
        found->preprocessing = (const DgcPreprocessing*)start(SECTION_PREPROCESSING);
        if (length(SECTION_PREPROCESSING) != sizeof(DgcPreprocessing) ||
            !preprocessing_fits(*found->preprocessing))
            return damaged(why, "its preprocessing cannot be");
    }
    if (sections[SECTION_ORIGIN]) {
        found->origin = start(SECTION_ORIGIN), found->origin_bytes = length(SECTION_ORIGIN);
        if (found->origin_bytes > kMostText) return damaged(why, "its origin is too long");
    }
    return programs_fit(found, length(SECTION_PROGRAMS), why);
}

}  // namespace dgc_plan
