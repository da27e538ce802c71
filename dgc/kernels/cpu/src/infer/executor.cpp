// Runs a program. Compiled once for each instruction set, in a namespace of its own; no C++ library
// is used, because a template instantiated here with wide vectors could be picked by the linker for
// a machine without them.
#include "contract.h"
#include "depthwise.h"
#include "images.h"
#include "pools.h"
#include "vectors.h"
#ifdef DGC_EXACT
#include "int8/ops8.h"
#else
#include "wino.h"
#endif

#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace DGC_ISA {

typedef void (*Item)(const DgcOp&, const Context&, int64_t);

inline void gates_item(const DgcOp& op, const Context& c, int64_t item) {
    const int64_t blocks = ceil_div(round_up(op.channels), kGateBlock);
    gate_block(op, c, item / blocks, item % blocks * kGateBlock);
}

inline void select_item(const DgcOp& op, const Context& c, int64_t head) {
    select_head(op, c, head);
    if (op.scale_weights) scale_panel(op, c, head);
}

// Operations that are a loop over like items: how many, and what each does.
inline Item item_of(const DgcOp& op, [[maybe_unused]] const Context& c, int64_t* items) {
    switch (op.kind) {
        case DGC_INPUT:
            return *items = op.dst.channels, input_plane;
        case DGC_OUTPUT:
            return *items = op.channels, output_plane;
        case DGC_MEAN:
            return *items = op.src.channels, mean_plane;
        case DGC_LINEAR:
            return *items = op.outs, linear_row;
        case DGC_GATES:
            return *items = op.heads * ceil_div(round_up(op.channels), kGateBlock), gates_item;
        case DGC_SELECT:
            return *items = op.heads, select_item;
        case DGC_PACK:
            return *items = op.src.channels, pack_plane;
#ifdef DGC_EXACT
        case DGC_STATS:
            return *items = op.channels, stats_item;
        case DGC_READERS:
            return *items = op.channels, readers_item;
        case DGC_ROWS16:
            return *items = ceil_div(op.outs, kRowsAtOnce), rows16_item;
        case DGC_GATES16:
            return *items = gates16_items(op), gates16_item;
#else
        case DGC_WINO:
            return *items = op.heads * wino_pieces(op) * wino_parts(op, c), wino_item;
#endif
        case DGC_POOL:
#ifdef DGC_EXACT
            return *items = op.src.channels, pool8_plane;
#else
            return *items = op.src.channels, pool_plane;
#endif
        case DGC_ADAPTIVE:
            return *items = op.src.channels, adaptive_plane;
        case DGC_COMBINE:
            return *items = op.dst.channels, combine_plane;
        case DGC_GATHER:
            return *items = op.dst.channels, gather_plane;
        case DGC_RESAMPLE:
            return *items = op.dst.channels, resample_plane;
        case DGC_FLATTEN:
            return *items = op.src.channels, flatten_plane;
        case DGC_SPREAD:
            return *items = 1, spread_item;
        case DGC_VECTOR:
            return *items = 1, vector_item;
        case DGC_SOFTMAX:
            return *items = 1, softmax_item;
        case DGC_ALONG:
            return *items = 1, along_item;
        case DGC_DEPTHWISE:
            return *items = op.channels, depth_item;
        case DGC_ADD:
            return *items = op.src.channels, add_plane;
        default:
            return *items = 0, nullptr;
    }
}

// Convolutions cut their heads into parts, as many as there are workers.
#ifdef DGC_EXACT
constexpr DgcKind kConvolution = DGC_CONV8;
inline int64_t conv_parts(const DgcOp& op, const Context& c) {
    return parts8(op, c.threads);
}
inline void conv_part(const DgcOp& op, const Context& c, int64_t item, int64_t parts) {
    conv8_item(op, c, item, parts);
}
inline void conv_all(const DgcOp& op, const Context& c) {
    // More items than heads: a head alone may be most
    // of an operation, and other workers would wait.
    const int64_t parts = conv_parts(op, c);
    const Range mine = share(op.heads * parts, c);
    for (int64_t i = mine.begin; i < mine.end; ++i) conv8_item(op, c, i, parts);
}
#else
constexpr DgcKind kConvolution = DGC_CONV;
inline int64_t conv_parts(const DgcOp& op, const Context& c) {
    return row_parts(op, c);
}
inline void conv_part(const DgcOp& op, const Context& c, int64_t item, int64_t parts) {
    conv_item(op, c, item, parts);
}
inline void conv_all(const DgcOp& op, const Context& c) {
    conv(op, c);
}
#endif

struct Timer {
    double* into;
    timespec start;
    explicit Timer(const Context& c, const DgcOp& op) : into(nullptr) {
        if (!c.run->seconds || !c.first_worker) return;
        // One thread's time, not the sum of all: what a caller waits for.
        into = c.run->seconds + (&op - c.ops);
        clock_gettime(CLOCK_MONOTONIC, &start);
    }
    ~Timer() {
        if (!into) return;
        timespec end;
        clock_gettime(CLOCK_MONOTONIC, &end);
        *into += double(end.tv_sec - start.tv_sec) + 1e-9 * double(end.tv_nsec - start.tv_nsec);
    }
};

inline void run_op(const DgcOp& op, const Context& c) {
    const Timer timer(c, op);
    if (op.kind == kConvolution) return conv_all(op, c);
    int64_t items;
    const Item item = item_of(op, c, &items);
    const Range mine = share(items, c);
    for (int64_t i = mine.begin; i < mine.end; ++i) item(op, c, i);
}

inline Context for_sample(Context c, const DgcRun& run, int64_t sample, int64_t owner) {
    const DgcProgram& p = *c.program;
    c.sample = sample;
    c.bases[0] = run.workspace + owner * p.thread_floats;
    // All threads' memory first, then the samples': the first
    // half stays where it is, however many samples follow.
    c.bases[1] = run.workspace + run.threads * (p.thread_floats + p.scratch_floats) +
                 sample * p.sample_floats;
    return c;
}

// Weights that are heavier than the activations: each is used for all samples while it is near.
inline void run_batched(const DgcOp& op, const Context& worker) {
    const Timer timer(worker, op);
    const DgcRun& run = *worker.run;
    int64_t items, parts = 1;
    const Item item = item_of(op, worker, &items);
    if (op.kind == kConvolution) parts = conv_parts(op, worker), items = op.heads * parts;
    const Range mine = share(items, worker);
    // Items outside, samples inside: an item's weights are read from memory once for all of them.
    for (int64_t i = mine.begin; i < mine.end; ++i)
        for (int64_t s = 0; s < run.samples; ++s) {
            const Context c = for_sample(worker, run, s, 0);
            if (op.kind == kConvolution)
                conv_part(op, c, i, parts);
            else
                item(op, c, i);
        }
}

inline void barrier(int64_t threads) {
    if (threads == 1) return;
#ifdef _OPENMP
#pragma omp barrier
#endif
}

inline int64_t stretch(const Context& c, int64_t first) {  // operations up to the next batched one
    int64_t i = first;
    while (i < c.program->count && !c.ops[i].batched) ++i;
    return i;
}

// Many samples: each worker takes every sample of its turn through a stretch of operations.
inline void samples_apart(const DgcRun& run, Context worker) {
    for (int64_t i = 0; i < worker.program->count;) {
        if (worker.ops[i].batched) {
            run_batched(worker.ops[i++], worker);
        } else {
            const int64_t end = stretch(worker, i);
            Context alone = worker;
            // Every operation shares its items among `threads`: here one worker does them all.
            alone.thread = 0, alone.threads = 1;
            for (int64_t s = worker.thread; s < run.samples; s += worker.threads) {
                const Context c = for_sample(alone, run, s, worker.thread);
                for (int64_t k = i; k < end; ++k) run_op(c.ops[k], c);
            }
            i = end;
        }
        // A batched operation reads what all workers wrote, and writes what all will read.
        barrier(worker.threads);
    }
}

// Few samples: all workers share each operation.
inline void samples_together(const DgcRun& run, const Context& worker) {
    for (int64_t i = 0; i < worker.program->count;) {
        if (worker.ops[i].batched) {
            run_batched(worker.ops[i++], worker);
            barrier(worker.threads);
            continue;
        }
        const int64_t end = stretch(worker, i);
        for (int64_t s = 0; s < run.samples; ++s) {
            const Context c = for_sample(worker, run, s, 0);
            for (int64_t k = i; k < end; ++k) {
                run_op(c.ops[k], c);
                barrier(worker.threads);
            }
        }
        i = end;
    }
}

// `workers` may be fewer than run.threads. The workspace is laid out for run.threads all the same:
// the padding in it has to be found where the last run left it.
inline void work(const DgcRun& run, int64_t thread, int64_t workers) {
    const DgcProgram& p = program_of(run);
    Context c = {};
    c.run = &run, c.block = (const char*)run.block, c.program = &p;
    c.ops = (const DgcOp*)(c.block + p.ops);
    c.first_worker = thread == 0;
    c.thread = thread, c.threads = workers;
    c.scratch = run.workspace + run.threads * p.thread_floats + thread * p.scratch_floats;
    if (run.samples >= workers)
        samples_apart(run, c);
    else
        samples_together(run, c);
}

void execute(const DgcRun& run) {
#ifdef DGC_DEBUG
    DGC_CHECK((uintptr_t)run.workspace % (4 * kAlign) == 0);  // whole lines of it are stored at once
    check_program(run);
#endif
#ifdef _OPENMP
    if (run.threads > 1) {
#pragma omp parallel num_threads(int(run.threads))
        {
            // Inside another parallel region OpenMP starts fewer threads, often one: then one does
            // all.
            const bool all = omp_get_num_threads() == run.threads;
            if (all)
                work(run, omp_get_thread_num(), run.threads);
            else if (omp_get_thread_num() == 0)
                work(run, 0, 1);
        }
        return;
    }
#endif
    work(run, 0, 1);  // without OpenMP, too
}

int registers() {
    return kRegisters;
}

// Multiply-adds per second of one core with everything in registers: what no kernel can exceed.
double peak() {
    // As many sums at once as it takes to hide the
    // latency of a multiply-add, and as registers hold.
    constexpr int kChains = kRegisters >= 32 ? 24 : 12;
    constexpr int64_t kRounds = 1 << 20;
    V acc[kChains] = {};
    const V a = splat(1.0000001f), b = splat(1e-9f);
    timespec start, end;
    double best = 0;
    for (int attempt = 0; attempt < 10; ++attempt) {
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (int64_t i = 0; i < kRounds; ++i)
#pragma GCC unroll 24
            for (int k = 0; k < kChains; ++k) acc[k] = acc[k] * a + b;
        clock_gettime(CLOCK_MONOTONIC, &end);
        const double s =
            double(end.tv_sec - start.tv_sec) + 1e-9 * double(end.tv_nsec - start.tv_nsec);
        const double rate = double(kRounds) * kChains * VL / s;
        best = rate > best ? rate : best;
    }
    // Or the compiler would leave out what nobody reads.
    volatile float used = 0;
    for (int k = 0; k < kChains; ++k) used = used + sum(acc[k]);
    return best;
}

}  // namespace DGC_ISA
