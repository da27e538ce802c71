// 8-bit convolutions for one instruction set: samples and heads are shared out to threads, each of
// which packs what a head keeps and sweeps over its outputs.
#include "tile8.h"

namespace DGC_ISA {

struct Room {  // numbers of 32 bits, and the bytes of all together
    int64_t values, weights, sums, none;
    int64_t bytes() const { return 4 * (values + weights + sums + none); }
};

static Room room_of(const DgcInt8& q) {
    const int64_t most = q.dynamic ? q.channels : q.channels / q.heads, fours = ceil_div(most, 4);
    const int64_t width = round_up(q.outs);
    return {round_up(fours * q.src.plane + q.src.lead + 64), round_up(fours * q.taps * width),
            width, round_up(ceil_div(q.taps * width, 4))};
}

static int64_t output_channel(const DgcInt8& q, int64_t head, int64_t row) {
    return row * q.out_step + head * q.head_step;
}

static Place place_of(const DgcInt8& q, const Head& h, int64_t first, int64_t subplane) {
    Place at{};
    const int64_t start = subplane * q.dst.phase_plane + q.dst.lead;
    at.offsets = q.offsets + subplane * q.taps, at.taps = q.taps, at.plane = q.src.plane;
    at.mask = q.dst_mask + subplane * q.dst.length, at.relu = q.relu != 0;
    at.fours = ceil_div(h.kept, 4);
    for (int64_t m = 0; m < smaller(kEight, q.outs - first); ++m) {
        const int64_t o = output_channel(q, h.head, first + m);
        const int64_t to = h.sample * q.y_step + o * q.dst.plane + start;
        at.y[m] = q.y + to;
        at.residual[m] = q.residual ? q.residual + to : nullptr;
        at.scale[m] = h.largest / h.levels * q.weight_scale[h.head * q.outs + first + m];
        at.bias[m] = q.bias ? q.bias[o] : 0.0f;
    }
    return at;
}

static int64_t used_vectors8(const DgcTensor& t) {
    return ceil_div((ceil_div(t.height, t.phases) - 1) * t.row + ceil_div(t.width, t.phases), VL);
}

static void say_nan(const DgcInt8& q, const Head& h) {
    const V nan = splat(__builtin_nanf(""));
    for (int64_t row = 0; row < q.outs; ++row)
        for (int64_t p = 0; p < q.dst.phases * q.dst.phases; ++p) {
            float* y = q.y + h.sample * q.y_step +
                       output_channel(q, h.head, row) * q.dst.plane + p * q.dst.phase_plane +
                       q.dst.lead;
            for (int64_t i = 0; i < q.dst.length; i += VL)
                store(y + i, keep(nan, load_int(q.dst_mask + p * q.dst.length + i)));
        }
}

static void convolve_head(const DgcInt8& q, int64_t sample, int64_t head, uint8_t* scratch) {
    const Head h = head_of(q, sample, head);
    if (h.broken()) return say_nan(q, h);
    const Room room = room_of(q);
    int32_t *values = (int32_t*)scratch, *weights = values + room.values;
    int32_t *sums = weights + room.weights, *none = sums + room.sums;
    fill(none, room.none, 0);
    pack_values(q, h, values);
    pack_weights(q, h, weights, sums, (const int8_t*)none);
    const int64_t block = ceil_div(h.kept, 4) * q.taps * kEight, vectors = used_vectors8(q.dst);
    for (int64_t first = 0; first < q.outs; first += kEight)
        for (int64_t p = 0; p < q.dst.phases * q.dst.phases; ++p) {
            Place at = place_of(q, h, first, p);
            at.values = values + q.src.lead, at.weights = weights + first / kEight * block;
            if (q.is_signed)
                for (int64_t m = 0; m < kEight; ++m) at.sums[m] = sums[first + m];
            block8(at, smaller(kEight, q.outs - first), vectors);
        }
}

// One output pixel after another, from the definition in int8_abi.h: no packing, no vectors.
static void reference_pixel(const DgcInt8& q, const Head& h, int64_t row, int64_t p, int64_t i) {
    const int64_t all = q.dynamic ? q.channels : q.channels / q.heads, width = round_up(q.outs);
    int64_t total = 0;
    for (int64_t k = 0; k < h.kept; ++k) {
        const int64_t channel = h.channel(k), own = q.dynamic ? channel : k;
        const float* x = q.x + h.sample * q.x_step + channel * q.src.plane + q.src.lead;
        const int8_t* w = q.weight + (h.head * all + own) * q.taps * width + row;
        for (int64_t t = 0; t < q.taps; ++t) {
            const int64_t at = q.offsets[p * q.taps + t] + i;
            float v = x[at];
            if (q.in_scale) {  // padding stays zero: where it lies, the mask says
                const int64_t in_plane = at + q.src.lead, sub = in_plane / q.src.phase_plane;
                const int64_t inside = in_plane % q.src.phase_plane - q.src.lead;
                const bool pixel = in_plane >= 0 && sub < q.src.phases * q.src.phases &&
                                   inside >= 0 && inside < q.src.length &&
                                   q.src_mask[sub * q.src.length + inside];
                v = v * q.in_scale[channel];
                v = pixel ? relu(v + q.in_shift[channel]) : 0.0f;
            }
            float rounded = __builtin_nearbyintf(v * (h.gate_of(k) * h.inverse));
            const float least = q.is_signed ? -h.levels : 0.0f;
            rounded = rounded < least ? least : rounded > h.levels ? h.levels : rounded;
            total += int64_t(rounded) * w[t * width];
        }
    }
    const int64_t o = output_channel(q, h.head, row);
    const int64_t to =
        h.sample * q.y_step + o * q.dst.plane + p * q.dst.phase_plane + q.dst.lead + i;
    float y = float(total) * (h.largest / h.levels * q.weight_scale[h.head * q.outs + row]);
    y += q.bias ? q.bias[o] : 0.0f;
    if (q.residual) y += q.residual[to];
    q.y[to] = h.broken() ? __builtin_nanf("") : q.relu ? relu(y) : y;
}

static void reference_head(const DgcInt8& q, int64_t sample, int64_t head) {
    const Head h = head_of(q, sample, head);
    for (int64_t row = 0; row < q.outs; ++row)
        for (int64_t p = 0; p < q.dst.phases * q.dst.phases; ++p)
            for (int64_t i = 0; i < q.dst.length; ++i)
                if (q.dst_mask[p * q.dst.length + i]) reference_pixel(q, h, row, p, i);
}

int64_t int8_room(const DgcInt8& q) {
    return room_of(q).bytes();
}

// Items of a pass are shared out in parts that depend on nothing but their number.
void int8(const DgcInt8& q) {
    const int64_t own = q.pass == DGC_INT8_MEANS ? q.channels : q.heads, items = q.samples * own;
#pragma omp parallel for num_threads(int(q.threads)) schedule(static)
    for (int64_t part = 0; part < q.threads; ++part) {
        const Range mine = cut(items, part, q.threads);
        for (int64_t i = mine.begin; i < mine.end; ++i)
            if (q.pass == DGC_INT8_MEANS)
                means_of(q, i / own, i % own);
            else if (q.pass == DGC_INT8_REFERENCE)
                reference_head(q, i / own, i % own);
            else
                convolve_head(q, i / own, i % own, q.scratch + part * q.scratch_step);
    }
}

}  // namespace DGC_ISA
