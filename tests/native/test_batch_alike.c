/* Are records that follow one like them encoded and decoded as each would be by itself?
 *
 * Imports slow_batch.h, record.h. Single-threaded. Batches of records of a few lengths, so that long runs are alike; to be
 * decoded with bytes changed where fields stand. The oracles know nothing of the record before: an encoder that goes byte by
 * byte, and the reader of single records. */
#include "slow_batch.h"

#include "tidelog/record.h"

enum { ROUNDS = 60000, MOST = 200, ROOM = MOST * 400 };

static uint64_t seed = 77;

static uint64_t draw(uint64_t below) { return check_random(&seed) % below; }

/* What tl_batch_records has to answer. */
static bool read_each(const uint8_t *base, size_t bytes, const tl_batch *batch, tl_record *out) {
    const uint8_t *p = base, *const end = p + bytes, *bad;
    int64_t previous = -1;
    if (batch->count < 0 || (size_t)batch->count > bytes / TL_RECORD_MIN_BYTES)
        return false;
    for (int32_t i = 0; i < batch->count; i++, out++) {
        tl_record_view r;
        if (tl_record_read(p, end, &r, &bad) != NULL || r.offset_delta <= previous || r.offset_delta > batch->last_offset_delta)
            return false;
        previous = r.offset_delta;
        *out = (tl_record){.offset = batch->base_offset + r.offset_delta,
                           .timestamp_ms = tl_timestamp_of(batch->base_timestamp_ms, r.timestamp_delta),
                           .key_at = (uint32_t)(r.key - base),
                           .key_bytes = r.key_bytes,
                           .value_at = (uint32_t)(r.value - base),
                           .value_bytes = r.value_bytes,
                           .headers_at = (uint32_t)(r.headers - base),
                           .headers_bytes = r.header_count == 0 ? 0 : (uint32_t)(r.next - r.headers)};
        p = r.next;
    }
    return p == end;
}

static bool same(const tl_record *a, const tl_record *b) {
    return a->offset == b->offset && a->timestamp_ms == b->timestamp_ms && a->key_at == b->key_at && a->key_bytes == b->key_bytes &&
           a->value_at == b->value_at && a->value_bytes == b->value_bytes && a->headers_at == b->headers_at &&
           a->headers_bytes == b->headers_bytes;
}

static void check_encoded(void) {
    enum { RECORDS = 9000, BOUND = RECORDS * 340 + 100 };
    static tl_message messages[RECORDS];
    static uint8_t values[4096];
    static const int32_t lengths[] = {-1, 0, 1, 7, 8, 9, 15, 16, 57, 63, 64, 100, 300};
    uint8_t *want = malloc(BOUND), *got = malloc(BOUND);
    CHECK(want != NULL && got != NULL);
    for (size_t i = 0; i < sizeof values; i++)
        values[i] = (uint8_t)draw(256);
    for (int round = 0; round < 3000; round++) {
        size_t count = round % 100 == 0 ? RECORDS : 1 + draw(200); /* past the deltas of two bytes now and then */
        int32_t value_bytes = lengths[draw(13)];
        int64_t timestamp = draw(2) == 0 ? 0 : (int64_t)draw(1000000);
        for (size_t i = 0; i < count; i++) {
            value_bytes = draw(50) == 0 ? lengths[draw(13)] : value_bytes;
            timestamp += draw(50) == 0 ? (int64_t)draw(40000) - 20000 : 0;
            messages[i] = (tl_message){.value = values + draw(3000), .value_bytes = value_bytes, .key_bytes = -1};
            messages[i].timestamp_ms = timestamp;
            if (draw(40) == 0)
                messages[i].key = values, messages[i].key_bytes = (int32_t)draw(20);
        }
        const tl_batch_spec spec = {.producer_id = -1, .base_sequence = -1, .producer_epoch = -1};
        int64_t newest = 0;
        memset(got, 0xaa, BOUND);
        size_t bytes = slow_encode(want, 7, &spec, messages, count);
        CHECK(tl_batch_encode(got, 7, &spec, messages, count, &newest) == bytes && memcmp(want, got, bytes) == 0);
    }
    free(want);
    free(got);
}

int main(void) {
    check_encoded();
    static uint8_t bytes[ROOM];
    static tl_record want[MOST], got[MOST];
    static const int32_t lengths[] = {0, 1, 9, 57, 58, 63, 64, 100, 300};
    unsigned long good = 0, bad = 0;
    for (int round = 0; round < ROUNDS; round++) {
        tl_batch batch = {.base_offset = (int64_t)draw(1 << 20), .base_timestamp_ms = 5000, .max_timestamp_ms = 9000};
        batch.count = (int32_t)(1 + draw(MOST));
        int32_t value_bytes = lengths[draw(9)], delta = draw(4) == 0 ? (int32_t)draw(9000) : 0;
        int64_t timestamp = draw(3) == 0 ? (int64_t)draw(300) - 100 : 0;
        size_t fronts[MOST];
        uint8_t *p = bytes;
        for (int32_t i = 0; i < batch.count; i++, delta++) {
            uint8_t body[400], *q = body;
            value_bytes = draw(40) == 0 ? lengths[draw(9)] : value_bytes;
            timestamp += draw(30) == 0 ? (int64_t)draw(100) : 0;
            delta += draw(30) == 0 ? (int32_t)draw(70) : 0;
            *q++ = 0;
            q = slow_put_varint(q, timestamp);
            q = slow_put_varint(q, delta);
            q = slow_put_varint(q, draw(60) == 0 ? 0 : -1);
            q = slow_put_varint(q, value_bytes);
            for (int32_t at = 0; at < value_bytes; at++)
                *q++ = (uint8_t)draw(256);
            *q++ = 0;
            fronts[i] = (size_t)(p - bytes);
            if (delta == 64 && i > 2 && draw(2) == 0) { /* a longer delta in the place of a shorter one */
                const uint8_t *before = bytes + fronts[i - 1];
                size_t n = (size_t)(p - before), at = 0;
                p = slow_put_bytes(p, before, n);
                while (at < n - 1 && bytes[fronts[i] + at] != 0x7e)
                    at++;
                bytes[fronts[i] + at] = 0x80;
                continue;
            }
            p = slow_put_varint(p, q - body);
            p = slow_put_bytes(p, body, (size_t)(q - body));
        }
        batch.last_offset_delta = delta - 1 - (draw(20) == 0);
        size_t n = (size_t)(p - bytes);
        for (uint64_t changes = draw(2) == 0 ? 1 + draw(3) : 0; changes > 0; changes--) {
            size_t from = fronts[draw((uint64_t)batch.count)];
            size_t at = draw(4) == 0 && from > 0 ? from - 1 : from + draw(12); /* where a field is, or a header count */
            bytes[at < n ? at : n - 1] ^= (uint8_t)(1u << draw(8));
        }
        n -= draw(12) == 0 ? draw(20) % n : 0;
        uint8_t *exact = malloc(n);
        CHECK(exact != NULL);
        memcpy(exact, bytes, n);
        bool is = read_each(exact, n, &batch, want);
        tl_error err = {0};
        int status = tl_batch_records(exact, 0, n, &batch, got, &err);
        CHECK(status == (is ? TL_OK : TL_ECORRUPT));
        for (int32_t i = 0; is && i < batch.count; i++)
            CHECK(same(&want[i], &got[i]));
        good += is;
        bad += !is;
        free(exact);
    }
    CHECK(good > ROUNDS / 3 && bad > ROUNDS / 5);
    return check_report();
}
