// The C interface: which instruction sets this build and this machine have, and running a program
// with one of them.
#include "api.h"
#include "mirror.h"

#define DGC_DECLARE(isa)                      \
    namespace isa {                           \
    void execute(const DgcRun& run);          \
    double peak();                            \
    int registers();                          \
    void train(const DgcTrain& pass);         \
    int64_t train_room(const DgcTrain& pass); \
    void norm(const DgcNorm& pass);           \
    int64_t norm_room(const DgcNorm& pass);   \
    }

#if defined(__x86_64__) || defined(_M_X64)
DGC_DECLARE(dgc_avx512)
DGC_DECLARE(dgc_avx2)
#define DGC_X86 1
#include <cpuid.h>
#endif
#if defined(DGC_AMX) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
DGC_DECLARE(dgc_baseline)

#define DGC_DECLARE_INT8(isa)                \
    namespace isa {                          \
    void execute(const DgcRun& run);         \
    void int8(const DgcInt8& layer);         \
    int64_t int8_room(const DgcInt8& layer); \
    }
DGC_DECLARE_INT8(dgc_int8_baseline)
#ifdef DGC_X86
DGC_DECLARE_INT8(dgc_int8_avx2)
DGC_DECLARE_INT8(dgc_int8_avx2_vnni)
DGC_DECLARE_INT8(dgc_int8_avx512)
DGC_DECLARE_INT8(dgc_int8_avx512_vnni)
#ifdef DGC_AMX
DGC_DECLARE_INT8(dgc_int8_avx512_amx)
#endif
#endif

#ifndef DGC_BUILT_FROM  // built by hand, not by kernels.cmake
#define DGC_BUILT_FROM "unknown"
#define DGC_COMPILER "unknown"
#endif

// Whether `bytes` bytes from `offset` on lie inside the block, at a multiple of 8.
static bool inside(const DgcRun& run, int64_t offset, int64_t bytes) {
    return offset >= 0 && bytes >= 0 && offset % 8 == 0 && bytes <= run.block_bytes &&
           offset <= run.block_bytes - bytes;
}

static bool block_holds_program(const DgcRun& run) {
    if (!run.block || (uintptr_t)run.block % 8 || !inside(run, run.program, sizeof(DgcProgram)))
        return false;
    const DgcProgram& p = program_of(run);
    int64_t bytes;
    return !__builtin_mul_overflow(p.count, int64_t(sizeof(DgcOp)), &bytes) &&
           inside(run, p.ops, bytes);
}

// Floats that a run works in: see DgcRun. -1: more than can be counted, or negative.
static int64_t workspace_floats(const DgcProgram& p, int64_t samples, int64_t threads) {
    if (p.thread_floats < 0 || p.sample_floats < 0 || p.scratch_floats < 0) return -1;
    int64_t of_threads, of_samples, all;
    if (__builtin_add_overflow(p.thread_floats, p.scratch_floats, &all) ||
        __builtin_mul_overflow(threads, all, &of_threads) ||
        __builtin_mul_overflow(samples, p.sample_floats, &of_samples) ||
        __builtin_add_overflow(of_threads, of_samples, &all))
        return -1;
    return all;
}

static bool workspace_suffices(const DgcRun& run) {
    if (run.samples < 0 || run.threads < 1) return false;
    const int64_t needed = workspace_floats(program_of(run), run.samples, run.threads);
    return needed >= 0 && needed <= run.workspace_floats && (run.workspace || needed == 0);
}


static int asked_features(int isa) {
    int found = 0;
#ifdef DGC_X86
    unsigned a = 0, b = 0, c = 0, d = 0, more = 0, b1 = 0, c1 = 0, d1 = 0;
    if (isa < 1 || !dgc_supports(isa) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (a >= 1) __get_cpuid_count(7, 1, &more, &b1, &c1, &d1);
    if (isa == 1) return more >> 4 & 1;  // AVX-VNNI
    if (c >> 11 & 1) found |= 1;
    if (more >> 5 & 1) found |= 2;
    unsigned low = 0,
             high =
                 0;  // which registers the system saves; that it can be asked follows from AVX-512
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const bool tiles = (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1);  // bfloat16, tiles, int8
    if (tiles && (low >> 17 & 3) == 3) found |= 4;
#else
    (void)isa;
#endif
    return found;
}

extern "C" {

// Read by the call, and from the file by those who must not load it: keep the words
// (dgc/kernels/sources.py).
const char* dgc_built_from() {
    return "dgc kernels built from " DGC_BUILT_FROM " by " DGC_COMPILER;
}

int dgc_abi_version() {
    return kDgcAbi;
}
int64_t dgc_op_size() {
    return sizeof(DgcOp);
}

// How the structures lie in memory, for the test of their mirror in Python.
const DgcField* dgc_fields() {
    return kFields;
}
int64_t dgc_field_count() {
    return sizeof(kFields) / sizeof(*kFields);
}

// 0 baseline, 1 AVX2 + FMA, 2 AVX-512 (F, VL, DQ, BW)
int dgc_supports(int isa) {
#ifdef DGC_X86
    __builtin_cpu_init();  // Clang's shared libraries may not have done it yet
    if (isa == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    if (isa == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return isa == 0;
}

// What this machine has on top of an instruction set, so that kernels may use it: 1 vnni (8-bit dot
// products), 2 bf16 (bfloat16 dot products), 4 amx (tiles for both). 8-bit plans and layers use vnni and amx.
int dgc_features(int isa) {
    // Asking the processor takes tens of microseconds in a virtual machine, where it is not the
    // processor that answers.
    static int known[3] = {-1, -1, -1};
    if (isa < 0 || isa > 2) return 0;
    int found = __atomic_load_n(&known[isa], __ATOMIC_RELAXED);
    if (found < 0) {
        found = asked_features(isa);
        __atomic_store_n(&known[isa], found, __ATOMIC_RELAXED);
    }
    return found;
}

int dgc_has_openmp() {
#ifdef DGC_OWN_OPENMP
    return dgc_openmp_found();
#elif defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}

// Whether tiles may be used: Linux gives their registers to a process that asks for them, once.
static bool tiles_given() {
#if defined(DGC_AMX) && defined(__linux__)
    constexpr long kAskForState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
    static int given = -1;  // -1: not asked yet. Asking twice does no harm
    int now = __atomic_load_n(&given, __ATOMIC_RELAXED);
    if (now < 0) {
        now = syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
        __atomic_store_n(&given, now, __ATOMIC_RELAXED);
    }
    return now == 1;
#else
    return false;
#endif
}

// The features of a run or a layer that are used: amx only on top of vnni.
static int used_features(int64_t wanted, int isa) {
    const int found = int(wanted) & dgc_features(isa) & 5;
    return found == 5 && isa == 2 && tiles_given() ? 5 : found & 1;
}

// A plan in 8 bits, with the features that the run allows.
static void run_exact(const DgcRun& run, int isa) {
#ifdef DGC_X86
    const int features = used_features(run.features, isa);
    const bool vnni = features & 1;
#ifdef DGC_AMX
    if (features & 4) return dgc_int8_avx512_amx::execute(run);
#endif
    if (isa == 2) return vnni ? dgc_int8_avx512_vnni::execute(run) : dgc_int8_avx512::execute(run);
#ifdef DGC_AVX_VNNI
    if (isa == 1 && vnni) return dgc_int8_avx2_vnni::execute(run);
#endif
    if (isa == 1) return dgc_int8_avx2::execute(run);
#endif
    (void)isa;
    dgc_int8_baseline::execute(run);
}

// A DgcAnswer.
int dgc_run(const DgcRun* run, int isa) {
    if (!dgc_supports(isa)) return DGC_NO_SUCH_ISA;
    if (!block_holds_program(*run)) return DGC_BAD_BLOCK;
    if (!workspace_suffices(*run)) return DGC_BAD_WORKSPACE;
    if (program_of(*run).exact) return run_exact(*run, isa), DGC_DONE;
#ifdef DGC_X86
    if (isa == 2) return dgc_avx512::execute(*run), DGC_DONE;
    if (isa == 1) return dgc_avx2::execute(*run), DGC_DONE;
#endif
    return dgc_baseline::execute(*run), DGC_DONE;
}

// Floats of scratch that each thread needs for a pass; the same for every instruction set.
int64_t dgc_train_room(const DgcTrain* pass) {
    return dgc_baseline::train_room(*pass);
}
int64_t dgc_train_size() {
    return sizeof(DgcTrain);
}

int dgc_train(const DgcTrain* pass, int isa) {
    if (!dgc_supports(isa)) return 1;
#ifdef DGC_X86
    if (isa == 2) return dgc_avx512::train(*pass), 0;
    if (isa == 1) return dgc_avx2::train(*pass), 0;
#endif
    return dgc_baseline::train(*pass), 0;
}

// The same for what stands around the convolutions.
int64_t dgc_norm_room(const DgcNorm* pass) {
    return dgc_baseline::norm_room(*pass);
}

int dgc_norm(const DgcNorm* pass, int isa) {
    if (!dgc_supports(isa)) return 1;
#ifdef DGC_X86
    if (isa == 2) return dgc_avx512::norm(*pass), 0;
    if (isa == 1) return dgc_avx2::norm(*pass), 0;
#endif
    return dgc_baseline::norm(*pass), 0;
}

int64_t dgc_int8_size() {
    return sizeof(DgcInt8);
}

// Bytes of scratch that each thread needs for a layer; the same for every instruction set.
int64_t dgc_int8_room(const DgcInt8* layer) {
    return dgc_int8_baseline::int8_room(*layer);
}

// `features` as dgc_features says them, those to be used. Without vnni at a level that has it the
// same is computed, more slowly.
int dgc_int8(const DgcInt8* layer, int isa, int features) {
    if (!dgc_supports(isa) || (features & ~dgc_features(isa))) return 1;
#ifdef DGC_X86
    const int used = used_features(features, isa);
    const bool vnni = used & 1;
#ifdef DGC_AMX
    if (used & 4) return dgc_int8_avx512_amx::int8(*layer), 0;
#endif
    if (isa == 2 && vnni) return dgc_int8_avx512_vnni::int8(*layer), 0;
    if (isa == 2) return dgc_int8_avx512::int8(*layer), 0;
#ifdef DGC_AVX_VNNI
    if (isa == 1 && vnni) return dgc_int8_avx2_vnni::int8(*layer), 0;
#endif
    if (isa == 1) return dgc_int8_avx2::int8(*layer), 0;
#endif
    return dgc_int8_baseline::int8(*layer), 0;
}

double dgc_peak(int isa) {
#ifdef DGC_X86
    if (isa == 2) return dgc_avx512::peak();
    if (isa == 1) return dgc_avx2::peak();
#endif
    return isa == 0 ? dgc_baseline::peak() : 0;
}

int dgc_registers(int isa) {
#ifdef DGC_X86
    if (isa == 2) return dgc_avx512::registers();
    if (isa == 1) return dgc_avx2::registers();
#endif
    return isa == 0 ? dgc_baseline::registers() : 0;
}
}
