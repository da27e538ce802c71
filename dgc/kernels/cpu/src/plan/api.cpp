// The functions of dgc_plan.h. Codes and text go out, never an exception: none is thrown here.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../api.h"
#include "arithmetic.h"
#include "checksum.h"
#include "file.h"
#include "refuse.h"
#include "rows.h"

using namespace dgc_plan;

struct DgcPlan {
    Contents contents;
    const char** classes;
    void* mapped;  // null: the caller's memory
    size_t mapped_bytes;
};

struct DgcRunner {
    DgcRun run;
    DgcShape shape;
    int isa;
    int64_t images, memory_bytes;
    bool own_memory;
};

namespace {

constexpr int64_t kMostThreads = 1024, kMostImages = 1 << 20;
constexpr int kWidest = 2;  // of dgc_supports

DgcPlan* no_plan(DgcError* why, const char* what) {
    return refuse(why, DGC_DATA, "cannot be read (%s)", what), nullptr;
}

bool list_classes(DgcPlan* plan, DgcError* why) {
    const int64_t count = plan->contents.class_count;
    plan->classes = (const char**)calloc(size_t(count + 1), sizeof(char*));
    if (!plan->classes) return refuse(why, DGC_RESOURCES, "no memory for class names");
    const char* name = plan->contents.classes;
    for (int64_t i = 0; i < count; ++i, name += strlen(name) + 1) plan->classes[i] = name;
    return true;
}

DgcPlan* checked(const void* bytes, size_t size, void* mapped, DgcError* why) {
    DgcPlan* plan = (DgcPlan*)calloc(1, sizeof(DgcPlan));
    if (!plan) refuse(why, DGC_RESOURCES, "no memory for a plan");
    if (plan && read_contents((const char*)bytes, int64_t(size), &plan->contents, why) &&
        list_classes(plan, why)) {
        plan->mapped = mapped, plan->mapped_bytes = size;
        return plan;
    }
    free(plan);
    if (mapped) munmap(mapped, size);
    return nullptr;
}

DgcShape shape_of(const FileProgram& p) {
    return {p.channels,
            p.height,
            p.width,
            p.out_dims,
            {p.out[0], p.out[1], p.out[2]},
            p.channels * p.height * p.width,
            p.out[0] * p.out[1] * p.out[2],
            p.precision};
}

bool same_images(const FileProgram& a, const FileProgram& b) {
    return a.channels == b.channels && a.height == b.height && a.width == b.width;
}

// Image sizes in the order of the file, each once.
const FileProgram* size_at(const DgcPlan* plan, int64_t index) {
    const Contents& c = plan->contents;
    for (int64_t i = 0; i < c.program_count; ++i) {
        bool seen = false;
        // Quadratic, of at most kMostPrograms.
        for (int64_t k = 0; k < i; ++k) seen = seen || same_images(c.programs[i], c.programs[k]);
        if (!seen && index-- == 0) return &c.programs[i];
    }
    return nullptr;
}

struct Chosen {
    const FileProgram* program;
    int isa;
    int64_t images, threads, bytes;
};

bool choose_isa(const DgcOptions& o, int* isa, DgcError* why) {
    for (*isa = kWidest; o.isa == 0 && !dgc_supports(*isa);) --*isa;
    if (o.isa) *isa = o.isa >= 1 && o.isa <= kWidest + 1 ? int(o.isa - 1) : -1;
    return (*isa >= 0 && dgc_supports(*isa)) ||
           refuse(why, DGC_USAGE, "this machine cannot execute kernels of level %lld",
                  (long long)(o.isa - 1));
}

// The program for the images that are asked for; of several the one made for as many registers as
// the machine has, else any: they differ in speed and last bits.
bool choose_program(const DgcPlan* plan, const DgcOptions& o, Chosen* chosen, DgcError* why) {
    const Contents& c = plan->contents;
    const bool any = o.height == 0 && o.width == 0;
    for (int64_t i = 0; i < c.program_count; ++i) {
        const FileProgram& p = c.programs[i];
        if (!(any ? same_images(p, c.programs[0]) : p.height == o.height && p.width == o.width))
            continue;
        if (!chosen->program || p.registers == dgc_registers(chosen->isa)) chosen->program = &p;
    }
    return chosen->program ||
           refuse(why, DGC_USAGE,
                  "it has no program for images of %lld x %lld pixels: export it again with "
                  "--size %lldx%lld",
                  (long long)o.height, (long long)o.width, (long long)o.height,
                  (long long)o.width);
}

bool choose(const DgcPlan* plan, const DgcOptions* options, Chosen* chosen, DgcError* why) {
    const DgcOptions none = {}, &o = options ? *options : none;
    *chosen = {nullptr, 0, o.images ? o.images : 1, o.threads ? o.threads : 1, 0};
    if (chosen->threads < 1 || chosen->threads > kMostThreads || chosen->images < 1 ||
        chosen->images > kMostImages)
        return refuse(why, DGC_USAGE, "%lld threads, %lld images: should be 1 to %lld, 1 to %lld",
                      (long long)chosen->threads, (long long)chosen->images,
                      (long long)kMostThreads, (long long)kMostImages);
    if (!choose_isa(o, &chosen->isa, why) || !choose_program(plan, o, chosen, why)) return false;
    const DgcProgram& p =
        *(const DgcProgram*)(plan->contents.block + chosen->program->program);
    chosen->bytes = times(4, plus(times(chosen->threads, plus(p.thread_floats, p.scratch_floats)),
                                  times(chosen->images, p.sample_floats)));
    if (chosen->bytes > int64_t(1) << 46)
        return refuse(why, DGC_RESOURCES, "that many images and threads need %lld bytes",
                      (long long)chosen->bytes);
    return true;
}

// Zeros, in large pages where the system has them: planes touch thousands of small ones.
void* zeroed(int64_t bytes) {
    void* memory = mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
#ifdef MADV_HUGEPAGE
    madvise(memory, size_t(bytes), MADV_HUGEPAGE);
#endif
    return memory;
}

}  // namespace

extern "C" {

int dgc_plan_api(void) {
    return DGC_PLAN_API;
}

DgcPlan* dgc_plan_open(const char* path, DgcError* why) {
    if (!path) return no_plan(why, "no path");
    // a pipe is not waited for
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return no_plan(why, strerror(errno));
    struct stat facts;
    const bool usable = fstat(file, &facts) == 0 && S_ISREG(facts.st_mode);
    const size_t size = usable ? size_t(facts.st_size) : 0;
    void* mapped = size ? mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    // close may set it anew.
    const int failed = errno;
    close(file);
    if (!usable) return no_plan(why, "it is no regular file");
    if (size == 0) return refuse(why, DGC_INTEGRITY, "an empty file, no plan"), nullptr;
    if (mapped == MAP_FAILED) return no_plan(why, strerror(failed));
    // Every byte is read now anyway, for the checksums: ask the disk for all at once.
    madvise(mapped, size, MADV_WILLNEED);
    return checked(mapped, size, mapped, why);
}

DgcPlan* dgc_plan_from_memory(const void* bytes, int64_t size, DgcError* why) {
    if (!bytes || size < 0 || (uintptr_t)bytes % kLine)
        return refuse(why, DGC_USAGE, "a plan in memory starts at a multiple of 64"), nullptr;
    return checked(bytes, size_t(size), nullptr, why);
}

void dgc_plan_close(DgcPlan* plan) {
    if (!plan) return;
    if (plan->mapped) munmap(plan->mapped, plan->mapped_bytes);
    free(plan->classes);
    free(plan);
}

int64_t dgc_plan_shapes(const DgcPlan* plan) {
    int64_t count = 0;
    while (size_at(plan, count)) ++count;
    return count;
}

int dgc_plan_shape(const DgcPlan* plan, int64_t index, DgcShape* shape) {
    const FileProgram* p = index < 0 ? nullptr : size_at(plan, index);
    if (p) *shape = shape_of(*p);
    return p ? DGC_OK : DGC_USAGE;
}

int64_t dgc_plan_classes(const DgcPlan* plan) {
    return plan->contents.class_count;
}

const char* dgc_plan_class(const DgcPlan* plan, int64_t index) {
    return index < 0 || index >= plan->contents.class_count ? nullptr : plan->classes[index];
}

const DgcPreprocessing* dgc_plan_preprocessing(const DgcPlan* plan) {
    return plan->contents.preprocessing;
}

const char* dgc_plan_origin(const DgcPlan* plan, int64_t* bytes) {
    if (bytes) *bytes = plan->contents.origin_bytes;
    return plan->contents.origin;
}

int64_t dgc_runner_bytes(const DgcPlan* plan, const DgcOptions* options, DgcError* why) {
    Chosen chosen;
    return choose(plan, options, &chosen, why) ? chosen.bytes : -1;
}

DgcRunner* dgc_runner_new(const DgcPlan* plan, const DgcOptions* options, DgcError* why) {
    Chosen chosen;
    if (!choose(plan, options, &chosen, why)) return nullptr;
    void* memory = options ? options->memory : nullptr;
    if (memory && (options->memory_bytes < chosen.bytes || (uintptr_t)memory % kLine))
        return refuse(why, DGC_USAGE, "%lld bytes at a multiple of 64 are needed",
                      (long long)chosen.bytes),
               nullptr;
    DgcRunner* runner = (DgcRunner*)calloc(1, sizeof(DgcRunner));
    if (runner && !memory && chosen.bytes > 0) {
        runner->own_memory = true;
        memory = zeroed(chosen.bytes);
    }
    if (!runner || (!memory && chosen.bytes > 0)) {
        free(runner);
        return refuse(why, DGC_RESOURCES, "no memory: %lld bytes are needed",
                      (long long)chosen.bytes),
               nullptr;
    }
    DgcRun& run = runner->run;
    run.block = plan->contents.block, run.block_bytes = plan->contents.block_bytes;
    run.program = chosen.program->program, run.threads = chosen.threads;
    run.features = dgc_features(chosen.isa);
    run.workspace = (float*)memory, run.workspace_floats = chosen.bytes / 4;
    runner->shape = shape_of(*chosen.program), runner->isa = chosen.isa;
    runner->images = chosen.images, runner->memory_bytes = chosen.bytes;
    return runner;
}

int dgc_runner_run(DgcRunner* runner, const float* images, int64_t count, float* answers,
                   DgcError* why) {
    if (count < 0 || (count > 0 && (!images || !answers)))
        return refuse(why, DGC_USAGE, "no images, or no room for answers"), DGC_USAGE;
    DgcRun run = runner->run;
    for (int64_t done = 0; done < count; done += run.samples) {
        run.samples = count - done < runner->images ? count - done : runner->images;
        run.input = images + done * runner->shape.in_floats;
        run.output = answers + done * runner->shape.out_floats;
        // The program was checked when it was opened; that it
        // fails now means that somebody wrote to the file.
        if (dgc_run(&run, runner->isa) != DGC_DONE)
            return refuse(why, DGC_INTEGRITY, "the plan was changed while it was in use"),
                   DGC_INTEGRITY;
    }
    return DGC_OK;
}

const DgcShape* dgc_runner_shape(const DgcRunner* runner) {
    return &runner->shape;
}

void dgc_runner_free(DgcRunner* runner) {
    if (runner && runner->own_memory) munmap(runner->run.workspace, size_t(runner->memory_bytes));
    free(runner);
}

// For whoever writes files, and for tests.
uint64_t dgc_checksum(const void* bytes, int64_t size) {
    return checksum(bytes, uint64_t(size));
}
int64_t dgc_row_count(void) {
    return kRowCount;
}
int64_t dgc_row_kind(int64_t index) {
    return kRows[index].kind;
}
}
