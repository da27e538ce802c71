// A fuzz target for plan files (libFuzzer; without it, a program that runs inputs and makes some up).
//
// The first byte of an input says what follows. 0: a file as it is. 1: a file whose magic, lengths and
// checksums are put right, so that what lies behind them is reached. Else a seed (one of the files in
// DGC_FUZZ_SEEDS) and edits of it, 8 bytes each, checksums put right at the end: what someone would do
// who means harm. Edits name operations and fields by number, so that inputs outlive changes of the
// format.
//
// Whatever is taken is run on every instruction set, in memory from the allocator: a sanitizer sees
// each step outside.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "plan/format.h"

extern "C" uint64_t dgc_checksum(const void* bytes, int64_t size);
extern "C" int dgc_supports(int isa);

using Bytes = std::vector<unsigned char>;
using namespace dgc_plan;

static long taken = 0, refused = 0;

static const std::vector<Bytes>& seeds() {
    static std::vector<Bytes> found;
    const char* folder = getenv("DGC_FUZZ_SEEDS");
    if (!found.empty() || !folder) return found;
    std::vector<std::string> names;
    if (DIR* listing = opendir(folder)) {
        while (dirent* entry = readdir(listing))
            if (entry->d_name[0] != '.') names.push_back(std::string(folder) + "/" + entry->d_name);
        closedir(listing);
    }
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
        std::ifstream in(name, std::ios::binary);
        found.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    }
    return found;
}

template <class T>
static T* at(Bytes& file, uint64_t offset, uint64_t count = 1) {
    const bool inside = offset % 8 == 0 && offset <= file.size() && count < (1u << 24) &&
                        count * sizeof(T) <= file.size() - offset;
    return inside ? (T*)(file.data() + offset) : nullptr;
}

static Section* section(Bytes& file, uint32_t kind) {
    FileHeader* h = at<FileHeader>(file, 0);
    Section* table = h ? at<Section>(file, sizeof *h, h->sections) : nullptr;
    for (uint32_t i = 0; table && i < h->sections; ++i)
        if (table[i].kind == kind) return &table[i];
    return nullptr;
}

static void put_right(Bytes& file) {
    FileHeader* h = at<FileHeader>(file, 0);
    if (!h) return;
    memcpy(h->magic, kMagic, sizeof kMagic);
    h->schema = kSchema, h->abi = kDgcAbi, h->op_bytes = sizeof(DgcOp), h->file_bytes = file.size();
    if (Section* table = at<Section>(file, sizeof *h, h->sections)) {
        for (uint32_t i = 0; i < h->sections; ++i)
            if (const unsigned char* start = at<unsigned char>(file, table[i].offset & ~7ull, 0))
                if (table[i].offset <= file.size() && table[i].bytes <= file.size() - table[i].offset)
                    table[i].checksum = dgc_checksum(start + table[i].offset % 8, table[i].bytes);
        h->table_checksum = dgc_checksum(table, h->sections * sizeof(Section));
    }
    h->checksum = dgc_checksum(h, offsetof(FileHeader, checksum));
}

struct Edit {
    uint8_t place, index, field, how;
    int32_t value;
};

static int64_t edited(int64_t old, const Edit& e) {
    const uint64_t before = uint64_t(old);  // which may overflow
    switch (e.how % 8) {
        case 0:
            return e.value;
        case 1:
            return int64_t(uint64_t(1) << (e.value & 63));
        case 2:
            return int64_t(before + uint64_t(int64_t(e.value % 64 * 16)));
        case 3:
            return int64_t(before + uint64_t(int64_t(e.value)));
        case 4:
            return int64_t(0 - before);
        case 5:
            return int64_t(before * uint64_t(int64_t(e.value % 17)));
        case 6:
            return int64_t(uint64_t(1) << (e.value & 63) | uint64_t(int64_t(e.value)));
        default:
            return int64_t(before ^ uint64_t(1) << (e.value & 63));
    }
}

static void edit(Bytes& file, const Edit& e) {
    const Section *programs = section(file, SECTION_PROGRAMS), *block = section(file, SECTION_BLOCK);
    if (!programs || !block) return;
    FileProgram* table = at<FileProgram>(file, programs->offset, programs->bytes / 80);
    const uint64_t count = programs->bytes / sizeof(FileProgram);
    if (!table || !count) return;
    const uint64_t start = block->offset + uint64_t(table[e.index % count].program);
    DgcProgram* program = at<DgcProgram>(file, start);
    DgcOp* ops = program && program->count > 0
                     ? at<DgcOp>(file, block->offset + uint64_t(program->ops), uint64_t(program->count))
                     : nullptr;
    int64_t* number = nullptr;
    if (e.place < 16) {
        number = at<int64_t>(file, (e.index * 8u + e.field * 2048u) % file.size() & ~uint64_t(7));
    } else if (e.place < 32) {
        number = at<int64_t>(file, programs->offset + (e.field * 8u % programs->bytes & ~7ull));
    } else if (e.place < 48 && program) {
        number = (int64_t*)program + e.field % (sizeof *program / 8);
    } else if (e.place < 56 && ops) {  // an operation in the place of another
        std::swap(ops[e.index % program->count], ops[e.field % program->count]);
    } else if (e.place < 60 && ops) {
        ops[e.index % program->count] = ops[e.field % program->count];
    } else if (e.place < 64) {
        file.resize(size_t(std::max<int64_t>(0, int64_t(file.size()) + e.value % 4096)));
    } else if (ops) {
        DgcOp& op = ops[e.index % program->count];
        number = (int64_t*)&op + e.field % (sizeof op / 8);
        if (e.place >= 224)  // the number of another operation
            return void(*number = ((int64_t*)&ops[(e.value & 0x7fff) % program->count])[e.field %
                                                                                 (sizeof op / 8)]);
        if (e.place >= 208 && op.index > 0)  // two numbers of a table of channels or pixels
            number = at<int64_t>(file, block->offset + uint64_t(op.index) + e.field % 32u * 8);
        else if (e.place >= 192 && op.offsets > 0)  // a table of taps
            number = at<int64_t>(file, block->offset + uint64_t(op.offsets) + e.field % 32u * 8);
    }
    if (number) *number = edited(*number, e);
}

static void run(const DgcPlan* plan, int64_t isa) {
    DgcOptions options = {};
    options.isa = isa, options.images = 2;
    for (int64_t i = 0; i < dgc_plan_shapes(plan) && i < 4; ++i) {
        DgcShape shape;
        dgc_plan_shape(plan, i, &shape);
        options.height = shape.height, options.width = shape.width;
        const int64_t bytes = dgc_runner_bytes(plan, &options, nullptr);
        if (bytes < 0 || bytes > 8 << 20 || shape.in_floats > 1 << 20 || shape.out_floats > 1 << 20)
            continue;
        void* memory = nullptr;
        if (posix_memalign(&memory, 64, size_t(bytes))) abort();
        memset(memory, 0, size_t(bytes));
        options.memory = memory, options.memory_bytes = bytes;
        DgcRunner* runner = dgc_runner_new(plan, &options, nullptr);
        if (!runner) abort();
        const DgcShape own = *dgc_runner_shape(runner);
        std::vector<float> in(size_t(2 * own.in_floats), 0.5f), out(size_t(2 * own.out_floats));
        if (dgc_runner_run(runner, in.data(), 2, out.data(), nullptr)) abort();
        if (dgc_runner_run(runner, in.data(), 1, out.data(), nullptr)) abort();
        dgc_runner_free(runner);
        free(memory);
    }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 1) return 0;
    Bytes file(data + 1, data + size);
    if (data[0] >= 2) {
        if (seeds().empty()) return 0;
        file = seeds()[data[0] % seeds().size()];
        for (size_t i = 1; i + sizeof(Edit) <= size && i < 32 * sizeof(Edit); i += sizeof(Edit)) {
            Edit e;
            memcpy(&e, data + i, sizeof e);
            edit(file, e);
        }
    }
    if (data[0] >= 1) put_right(file);
    void* exact = nullptr;  // not a byte more than the file
    if (posix_memalign(&exact, 64, file.size() + (file.empty() ? 1 : 0))) abort();
    if (!file.empty()) memcpy(exact, file.data(), file.size());
    DgcError why = {};
    DgcPlan* plan = dgc_plan_from_memory(exact, int64_t(file.size()), &why);
    if (plan) {
        ++taken;
        for (int64_t isa = 0; isa < 3; ++isa)
            if (dgc_supports(int(isa))) run(plan, isa + 1);
        dgc_plan_close(plan);
    } else {
        ++refused;
        const bool one_line = why.text[0] && !strchr(why.text, '\n');
        if (why.code != DGC_INTEGRITY || !one_line) abort();
    }
    free(exact);
    return 0;
}

#ifdef DGC_OWN_MAIN  // no libFuzzer: the inputs that are named, then as many made up as `-runs=` says
int main(int argc, char** argv) {
    long runs = 0;
    for (int i = 1; i < argc; ++i) {
        if (!strncmp(argv[i], "-runs=", 6)) {
            runs = atol(argv[i] + 6);
            continue;
        }
        std::ifstream in(argv[i], std::ios::binary);
        const Bytes input{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    srand(1);
    for (long i = 0; i < runs; ++i) {
        Bytes input(1 + size_t(rand() % 4 + 1) * sizeof(Edit));
        for (unsigned char& byte : input) byte = (unsigned char)(rand() >> 7);
        input[0] |= 2;
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    printf("%ld taken and run, %ld refused\n", taken, refused);
}
#endif
