// Checks a program that comes from a file, so that no kernel has to. It holds, for every operation:
// its kind is known; its images and regions lie inside their arenas, its constants inside the block;
// what it reads of the workspace was written by an operation before it (so none waits for itself, and
// no image sees another's); and its kind's rule (rows.h).
//
// Indices that are made while it runs (lists of selected channels) are only ever written by SELECT:
// memory that is a list is never anything else, and whoever reads it says the same number of
// channels. Memory is watched in lines of 16 floats. The arena of a thread is forgotten where a
// stretch of operations ends (executor.cpp): what must outlive it lies in the sample's.
#include "program.h"

#include <stdlib.h>

#include "refuse.h"
#include "rows.h"

namespace dgc_plan {
namespace {

constexpr int64_t kMostNumber = int64_t(1) << 36;
constexpr int64_t kMostSide = 1 << 20;          // pixels
constexpr int64_t kMostPhases = 1 << 6;
constexpr int64_t kMostLines = int64_t(1) << 30;  // that all operations together touch: seconds

struct Line {
    uint32_t written;  // in which stretch; 0: never
    uint32_t list;     // 1 + the operation that first makes a list of it; 0: it is none
};

bool all_zero(const void* start, size_t bytes) {
    const char* byte = (const char*)start;
    for (size_t i = 0; i < bytes; ++i)
        if (byte[i]) return false;
    return true;
}

class Check {
  public:
    Check(const char* block, int64_t block_bytes, const DgcProgram& program, DgcError* why)
        : block_(block), block_bytes_(block_bytes), program_(program), why_(why) {
        ops_ = (const DgcOp*)(block + program.ops);
    }
    ~Check() {
        for (Line* lines : lines_) free(lines);
    }
    bool all();

  private:
    const char* block_;
    int64_t block_bytes_;
    const DgcProgram& program_;
    DgcError* why_;
    const DgcOp* ops_;
    Line* lines_[2] = {nullptr, nullptr};
    uint32_t stretch_ = 1;
    int64_t touched_ = 0, at_ = 0;
    const Row* row_ = nullptr;

    const DgcOp& op() const { return ops_[at_]; }
    int64_t room(int64_t arena) const {
        return arena ? program_.sample_floats : program_.thread_floats;
    }
    bool wrong(const char* what, const char* how) const {
        return refuse(why_, DGC_INTEGRITY, "operation %lld (%s): %s: %s", (long long)at_,
                      row_ ? row_->name : "of unknown kind", what, how);
    }
    bool numbers() const;
    bool lists();
    bool operation();
    bool image(const ImageUse& use);
    bool planes(const char* name, const DgcTensor& t) const;
    bool layouts() const;
    bool region(const RegionUse& use);
    bool constant(const ConstantUse& use) const;
    bool absent() const;
    bool apart() const;
    bool touch(const char* name, int64_t arena, int64_t offset, int64_t floats, Access access);
    bool list_of(const DgcRegion& r, int64_t channels, int64_t heads) const;
};

// Every number of an operation but those of its tables: small enough to be multiplied.
bool Check::numbers() const {
    // An operation is whole numbers of 64 bits and nothing else.
    const int64_t* number = (const int64_t*)&op();
    for (int64_t i = 0; i < int64_t(sizeof(DgcOp) / 8); ++i)
        if (number[i] < 0 || number[i] > kMostNumber)
            return wrong("a number", "is negative or over 2^36");
    if (op().act > DGC_MISH || (op().act && op().relu) || op().mode > DGC_BY_ROWS)
        return wrong("an activation or a mode", "is not known to this version");
    return true;
}

bool Check::constant(const ConstantUse& use) const {
    const int64_t offset = op().*use.at, count = use.count(op());
    if (offset == 0)
        return !use.needed || count < 0 ||
               wrong(use.name, "is not there, and the operation needs it");
    if (count < 0) return wrong(use.name, "is there, and the operation has no use for it");
    if (offset % kLine || plus(offset, times(count, use.each)) > block_bytes_)
        return wrong(use.name, "does not lie whole inside the block");
    return true;
}

// `floats` numbers of an arena, and what is done with them.
bool Check::touch(const char* name, int64_t arena, int64_t offset, int64_t floats, Access access) {
    if (arena > 1 || offset % kAlign || plus(offset, up16(floats)) > room(arena))
        return wrong(name, "does not lie whole inside the workspace");
    if (op().batched && arena == 0)
        return wrong(name, "belongs to a thread, and the operation runs over all samples");
    const int64_t first = offset / kAlign, end = first + up16(floats) / kAlign;
    // A file of a few bytes may name the whole arena in
    // each of its operations: checking must end, too.
    touched_ += end - first;
    if (touched_ > kMostLines) return wrong(name, "the program touches more memory than any should");
    const bool lists = access == MAKES_LIST || access == READS_LIST;
    const uint32_t now = arena ? 1 : stretch_;
    for (int64_t i = first; i < end; ++i) {
        Line& line = lines_[arena][i];
        // Never both: an index that was computed as a float would lead a kernel anywhere.
        if ((line.list != 0) != lists)
            return wrong(name, lists ? "is no list of selected channels"
                                     : "overlaps a list of selected channels");
        if (access == WRITES || access == MAKES_LIST)
            line.written = now;
        else if (line.written != now)
            return wrong(name, "is read before anything is written there");
    }
    return true;
}

// Whether planes hold their pixels, and the block the mask.
bool Check::planes(const char* name, const DgcTensor& t) const {
    if (t.channels < 1 || t.phases < 1 || t.phases > kMostPhases || t.height < 1 || t.width < 1 ||
        t.height > kMostSide || t.width > kMostSide)
        return wrong(name, "has no channels or pixels, or too many");
    const int64_t rows = parts_of(t.height, t.phases), columns = parts_of(t.width, t.phases);
    if (t.lead % kAlign || t.length % kAlign || t.plane % kAlign || t.phase_plane % kAlign ||
        t.row < columns || plus(times(rows - 1, t.row), columns) > t.length ||
        plus(t.lead, t.length) > t.phase_plane || times(subplanes(t), t.phase_plane) > t.plane)
        return wrong(name, "has planes that do not hold its pixels");
    const int64_t mask = times(subplanes(t), t.length, 4);
    if (t.mask == 0 || t.mask % kLine || plus(t.mask, mask) > block_bytes_)
        return wrong(name, "has a mask that does not lie whole inside the block");
    return true;
}

// Those that have no place in the workspace: a convolution's in bytes, and absent elsewhere.
bool Check::layouts() const {
    const struct {
        const char* name;
        const DgcTensor& t;
    } both[] = {{"bytes", op().bytes}, {"unpooled", op().unpooled}};
    for (const auto& each : both) {
        if (all_zero(&each.t, sizeof(DgcTensor))) continue;
        if (op().kind != DGC_CONV8)
            return wrong(each.name, "is there, and the operation has no use for it");
        if (each.t.arena || each.t.offset || each.t.reused)
            return wrong(each.name, "has a place in the workspace, and should have none");
        if (!planes(each.name, each.t)) return false;
    }
    return true;
}

bool Check::image(const ImageUse& use) {
    const DgcTensor& t = op().*use.at;
    const int64_t* number = (const int64_t*)&t;
    if (use.present && !use.present(op())) {
        for (int64_t i = 0; i < int64_t(sizeof(DgcTensor) / 8); ++i)
            if (number[i]) return wrong(use.name, "is there, and the operation has no use for it");
        return true;
    }
    if (!planes(use.name, t)) return false;
    const int64_t floats = times(t.channels, t.plane);
    if (t.arena > 1 || plus(t.offset, floats, t.lead, kTail) > room(t.arena))
        return wrong(use.name, "does not lie whole inside the workspace");
    if (t.reused > (use.access == WRITES ? 1 : 0))
        return wrong(use.name, "is made clear of another image, and only one that is written can be");
    // Then zeros are written behind its last channel, too.
    const int64_t behind = t.reused ? t.lead : 0;
    return touch(use.name, t.arena, t.offset, floats + behind, use.access);
}

// Whether the list at `r` is made for as many channels, and for as many heads at least.
bool Check::list_of(const DgcRegion& r, int64_t channels, int64_t heads) const {
    const uint32_t maker = lines_[r.arena][r.offset / kAlign].list;
    if (maker == 0) return false;
    const DgcOp& by = ops_[maker - 1];
    return by.list.offset == r.offset && by.channels == channels && by.heads >= heads;
}

bool Check::region(const RegionUse& use) {
    const DgcRegion& r = op().*use.at;
    const int64_t floats = use.floats(op());
    if (floats < 0)
        return (r.arena == 0 && r.offset == 0) ||
               wrong(use.name, "is there, and the operation has no use for it");
    if (!touch(use.name, r.arena, r.offset, floats, use.access)) return false;
    return use.access != READS_LIST || list_of(r, op().channels, op().heads) ||
           wrong(use.name, "was made for another number of channels or heads");
}

template <class Use, int N, class Field>
bool names(const Use (&uses)[N], Field DgcOp::*at) {
    for (const Use& use : uses)
        if (use.name && use.at == at) return true;
    return false;
}

// What the row does not name has to be absent: no kernel looks there, and none ever shall.
bool Check::absent() const {
    constexpr int64_t DgcOp::*kConstants[] = {&DgcOp::offsets,  &DgcOp::weight,   &DgcOp::external,
                                              &DgcOp::bias,     &DgcOp::in_scale, &DgcOp::in_shift,
                                              &DgcOp::edges,    &DgcOp::index};
    constexpr DgcTensor DgcOp::*kImages[] = {&DgcOp::src, &DgcOp::dst, &DgcOp::residual};
    constexpr DgcRegion DgcOp::*kRegions[] = {&DgcOp::in, &DgcOp::out, &DgcOp::list, &DgcOp::panel};
    bool none = true;
    for (const auto at : kConstants)
        none = none && (op().*at == 0 || names(row_->constants, at));
    for (const auto at : kImages)
        none = none && (all_zero(&(op().*at), sizeof(DgcTensor)) || names(row_->images, at));
    for (const auto at : kRegions)
        none = none && (all_zero(&(op().*at), sizeof(DgcRegion)) || names(row_->regions, at));
    return none || wrong("an operand", "is there, and the operation has no use for it");
}

// Whether an image that is written lies beside those that are read, or in the very place of one:
// kernels copy whole rows, which must not overlap.
bool Check::apart() const {
    const DgcTensor& d = op().dst;
    for (const ImageUse& use : row_->images) {
        if (!use.name || use.access != READS || (use.present && !use.present(op()))) continue;
        const DgcTensor& s = op().*use.at;
        // In place is fine: each vector is read before it is written.
        const bool same = s.offset == d.offset && s.plane == d.plane && alike(s, d);
        if (s.arena != d.arena || d.plane == 0 || same) continue;
        if (s.offset < plus(d.offset, times(d.channels, d.plane)) &&
            d.offset < plus(s.offset, times(s.channels, s.plane)))
            return wrong(use.name, "overlaps the image that is written");
    }
    return true;
}

bool Check::operation() {
    row_ = row_of(op().kind);
    if (!layouts()) return false;
    for (const ConstantUse& use : row_->constants)
        if (use.name && !constant(use)) return false;
    // What is read first, then what is written: an operation may not read its own result.
    for (const ImageUse& use : row_->images)
        if (use.name && use.access == READS && !image(use)) return false;
    for (const RegionUse& use : row_->regions)
        if (use.name && use.access != WRITES && use.access != MAKES_LIST && !region(use))
            return false;
    for (const ImageUse& use : row_->images)
        if (use.name && use.access == WRITES && !image(use)) return false;
    for (const RegionUse& use : row_->regions)
        if (use.name && (use.access == WRITES || use.access == MAKES_LIST) && !region(use))
            return false;
    if (!absent() || !apart()) return false;
    const char* broken = row_->rule ? row_->rule({op(), program_, block_}) : nullptr;
    return !broken || wrong(broken, "is not what its kernel relies on");
}

// Before anything else: which memory is a list of selected channels.
bool Check::lists() {
    for (at_ = 0; at_ < program_.count; ++at_) {
        row_ = row_of(op().kind);
        if (!row_) return wrong("its kind", "is not known to this version");
        if (row_->programs == (program_.exact ? IN_FLOATS : IN_BYTES))
            return wrong("its kind", "belongs to programs of another precision");
        if (!numbers()) return false;
        for (const auto count : row_->counts)
            if (count && op().*count < 1) return wrong("a count", "is less than one");
        for (const RegionUse& use : row_->regions) {
            if (!use.name || use.access != MAKES_LIST) continue;
            const DgcRegion& r = op().*use.at;
            const int64_t floats = use.floats(op());
            if (r.arena > 1 || r.offset % kAlign || plus(r.offset, floats) > room(r.arena))
                return wrong(use.name, "does not lie whole inside the workspace");
            Line* line = lines_[r.arena] + r.offset / kAlign;
            touched_ += floats / kAlign;
            if (touched_ > kMostLines)
                return wrong(use.name, "the program touches more memory than any should");
            for (int64_t i = 0; i < floats / kAlign; ++i) {
                if (line[i].list == 0) line[i].list = uint32_t(at_ + 1);
                const DgcOp& by = ops_[line[i].list - 1];
                if (by.list.offset != r.offset || by.channels != op().channels)
                    return wrong(use.name, "overlaps a list of another form");
            }
        }
    }
    return true;
}

bool Check::all() {
    for (int64_t arena = 0; arena < 2; ++arena) {
        // By the size that the program claims, which is bounded
        // (kMostFloats), and zero pages cost nothing before they are touched.
        lines_[arena] = (Line*)calloc(size_t(room(arena) / kAlign + 1), sizeof(Line));
        if (!lines_[arena]) return refuse(why_, DGC_RESOURCES, "no memory to check a program in");
    }
    if (!lists()) return false;
    int64_t inputs = 0, outputs = 0;
    for (at_ = 0; at_ < program_.count; ++at_) {
        // a stretch ends before and behind each operation that runs over all samples
        if (op().batched || (at_ > 0 && ops_[at_ - 1].batched)) ++stretch_;
        if (!operation()) return false;
        inputs += op().kind == DGC_INPUT, outputs += op().kind == DGC_OUTPUT;
    }
    if (inputs == 1 && outputs == 1) return true;
    return refuse(why_, DGC_INTEGRITY, "a program with %lld inputs and %lld outputs",
                  (long long)inputs, (long long)outputs);
}

}  // namespace

bool check_program(const char* block, int64_t block_bytes, int64_t program, DgcError* why) {
    // Subtracted on the right: a sum on the left could overflow.
    if (program < 0 || program % 8 || program > block_bytes - int64_t(sizeof(DgcProgram)))
        return refuse(why, DGC_INTEGRITY, "a program does not lie whole inside the block");
    const DgcProgram& p = *(const DgcProgram*)(block + program);
    if (p.count < 1 || p.count > kMostOperations)
        return refuse(why, DGC_INTEGRITY, "a program of %lld operations: 1 to %lld are possible",
                      (long long)p.count, (long long)kMostOperations);
    const int64_t bytes = p.count * int64_t(sizeof(DgcOp));
    if (p.ops < 0 || p.ops % 8 || p.ops > block_bytes - bytes)
        return refuse(why, DGC_INTEGRITY, "a program's operations do not lie whole inside the block");
    const int64_t sizes[] = {p.thread_floats, p.sample_floats, p.scratch_floats, p.in_floats,
                             p.out_floats};
    for (const int64_t size : sizes)
        if (size < 0 || size > kMostFloats)
            return refuse(why, DGC_INTEGRITY, "a program that works in %lld numbers",
                          (long long)size);
    if ((p.thread_floats | p.sample_floats | p.scratch_floats) % kAlign)
        return refuse(why, DGC_INTEGRITY, "a program's memory is no multiple of 16 numbers");
    if (p.exact < 0 || p.exact > 1)
        return refuse(why, DGC_INTEGRITY, "a program of unknown precision");
    return Check(block, block_bytes, p, why).all();
}

}  // namespace dgc_plan
