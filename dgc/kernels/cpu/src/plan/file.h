// A plan file in memory, checked.
#pragma once
#include "format.h"

namespace dgc_plan {

struct Contents {
    const FileProgram* programs;
    int64_t program_count;
    const char* block;
    int64_t block_bytes;
    const char* classes;  // null: nobody named them
    int64_t class_count;
    const DgcPreprocessing* preprocessing;
    const char* origin;
    int64_t origin_bytes;
};

// `size` bytes, at a multiple of 64. False, and one line in `why`, where they are no whole, undamaged
// plan file whose every program may be run.
bool read_contents(const char* bytes, int64_t size, Contents* found, DgcError* why);

}  // namespace dgc_plan
