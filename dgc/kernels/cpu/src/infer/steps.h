// A run as steps, one after the other: a step is so many like items, which workers share, and is
// done when all its items are. Called by crew.h and executor.cpp.
#pragma once
#include "items.h"
#include "padding.h"

#include <time.h>

namespace DGC_ISA {

struct Timer {
    double* into;
    timespec start;
    explicit Timer(const Context& c, const DgcOp& op) : into(nullptr) {
        if (!c.run->seconds || c.worker != 0) return;
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

// What a step's items are.
enum class Sharing {
    kItems,    // those of one operation on one sample: few samples
    kSamples,  // samples, each taken through a stretch of operations: many samples
    kBatched   // those of one operation, each for all samples: weights heavier than activations,
               // which are read from memory once for all of them
};

struct Step {
    Sharing sharing;
    int64_t first, end;  // the stretch of operations that belong together
    int64_t op, sample;  // kItems
    int64_t items;
};

// `workers` share the run's steps. The workspace is laid out for run.threads.
inline Context context_of(const DgcRun& run, int64_t worker, int64_t workers) {
    const DgcProgram& p = program_of(run);
    Context c = {};
    c.run = &run, c.block = (const char*)run.block, c.program = &p;
    c.ops = (const DgcOp*)(c.block + p.ops);
    c.worker = worker, c.threads = workers;
    c.scratch = run.workspace + run.threads * p.thread_floats + worker * p.scratch_floats;
    return c;
}

inline Context for_sample(Context c, int64_t sample, int64_t owner) {
    const DgcProgram& p = *c.program;
    const DgcRun& run = *c.run;
    c.sample = sample;
    c.bases[0] = run.workspace + owner * p.thread_floats;
    // All threads' memory first, then the samples': the first
    // half stays where it is, however many samples follow.
    c.bases[1] = run.workspace + run.threads * (p.thread_floats + p.scratch_floats) +
                 sample * p.sample_floats;
    return c;
}

inline int64_t items_in(const DgcOp& op, const Context& c, bool whole_heads) {
    int64_t items;
    item_of(op, c, &items, whole_heads);
    return items;
}

// The first step of what begins at operation `first`; false: there is none.
inline bool begin_stretch(const Context& c, int64_t first, Step* s) {
    const int64_t count = c.program->count, samples = c.run->samples;
    if (first == count || samples == 0) return false;
    *s = {Sharing::kBatched, first, first + 1, first, 0, 0};
    if (c.ops[first].batched) {
        s->items = items_in(c.ops[first], c, true);
        return true;
    }
    while (s->end < count && !c.ops[s->end].batched) ++s->end;
    const bool apart = samples >= c.threads;
    s->sharing = apart ? Sharing::kSamples : Sharing::kItems;
    s->items = apart ? samples : items_in(c.ops[first], c, false);
    return true;
}

// The step after `s`; false: there is none.
inline bool next_step(const Context& c, Step* s) {
    if (s->sharing != Sharing::kItems) return begin_stretch(c, s->end, s);
    if (++s->op == s->end) {
        if (++s->sample == c.run->samples) return begin_stretch(c, s->end, s);
        s->op = s->first;
    }
    s->items = items_in(c.ops[s->op], c, false);
    return true;
}

// Whether a step is sooner done than others are called to it.
inline bool is_small(const Context& c, const Step& s) {
    if (s.sharing != Sharing::kItems) return false;
    const DgcOp& op = c.ops[s.op];
    switch (op.kind) {
        case DGC_LINEAR:
            return op.outs * op.channels <= kSmallStep;
        case DGC_GATES:
            return op.heads * op.hidden * op.channels <= kSmallStep;
        case DGC_ROWS16:
            return op.outs * op.channels <= kSmallStep;
        case DGC_GATES16:
            return op.heads * op.hidden * op.channels <= kSmallStep;
        case DGC_SELECT:
            return !op.scale_weights && op.heads * op.channels <= kSmallChoice;
        case DGC_VECTOR:
        case DGC_ALONG:
            return true;
        default:
            return false;
    }
}

struct Share {
    int64_t item, items;
};

inline void run_item(Item item, const DgcOp& op, const Context& c, Share share) {
    if (op.dst.reused) clear_share(op, c, share.item, share.items);
    item(op, c, share.item);
}

inline void run_sample(const Step& s, const Context& worker, int64_t sample) {
    Context c = for_sample(worker, sample, worker.worker);
    c.threads = 1;  // every operation's items are done here
    for (int64_t k = s.first; k < s.end; ++k) {
        const DgcOp& op = c.ops[k];
        const Timer timer(c, op);
        int64_t items;
        const Item item = item_of(op, c, &items, false);
        for (int64_t i = 0; i < items; ++i) run_item(item, op, c, {i, items});
    }
}

// Items [some.begin, some.end) of a step.
inline void run_items(const Step& s, const Context& worker, Range some) {
    if (s.sharing == Sharing::kSamples) {
        for (int64_t i = some.begin; i < some.end; ++i) run_sample(s, worker, i);
        return;
    }
    const bool batched = s.sharing == Sharing::kBatched;
    const DgcOp& op = worker.ops[s.op];
    const Timer timer(worker, op);
    int64_t items;
    const Item item = item_of(op, worker, &items, batched);
    if (!batched) {
        const Context c = for_sample(worker, s.sample, 0);
        for (int64_t i = some.begin; i < some.end; ++i) run_item(item, op, c, {i, items});
        return;
    }
    // Items outside, samples inside: an item's weights are read from memory once for all of them.
    for (int64_t i = some.begin; i < some.end; ++i)
        for (int64_t k = 0; k < worker.run->samples; ++k)
            run_item(item, op, for_sample(worker, k, 0), {i, items});
}

}  // namespace DGC_ISA
