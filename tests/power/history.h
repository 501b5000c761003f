/* What was a store told, what did it promise, and does what is left of it keep the promises?
 *
 * Imports log.h, check.h, values.h. Single-threaded; a forked child has a history of its own. A history is plain data: copy it to
 * keep the state at a cut. Every message has a number of its own from which its key, value and timestamp follow, so that
 * an offset which is handed out twice, a message out of place and a byte that nobody wrote all show up when it is read.
 * The promises are those of docs/guarantees.md; a message tells which one was broken. */
#ifndef TIDELOG_POWER_HISTORY_H
#define TIDELOG_POWER_HISTORY_H

#include "check.h"
#include "tidelog/log.h"
#include "values.h"

#include <stdarg.h>

#define PARTITIONS 10
#define SPANS 300
#define COMMITS 64
#define BATCH 24
#define TXNS 512

/* Messages at `offset` and behind it; the number of the first, counting up. */
typedef struct span {
    int64_t offset, count;
    uint32_t number;
} span;

enum existence { NOT_THERE, CREATING, LIVE, DROPPING, DROPPED };

typedef struct part {
    enum existence existence;
    uint8_t channel[16];
    char directory[16];
    uint32_t slot;
    span spans[SPANS];
    int span_count;
    span inflight;              /* an append that has not returned; count 0: none */
    int64_t end;                /* visible log end; no offset below it may mean anything new, ever */
    int64_t synced;             /* messages below are promised to be on the disk */
    int64_t start, start_asked; /* promised log start; the one a trim that has not returned asked for */
    int64_t start_in_doubt;     /* the same of a trim whose process died: it may be on disk and come true later */
    bool failed;                /* a sync failed: it takes no more messages */
    int64_t commits[COMMITS];   /* [0] is promised (-1: nothing committed), those behind it may be there instead */
    int commit_count;
    bool committing; /* the last one has not returned */
} part;

/* ASKED: a synced commit that has not returned. SEEN: it was there after a cut, so it stays. TORN: a cut took a part of what
 * was written only. */
enum txn_state { TXN_OPEN, TXN_ABORTED, TXN_WRITTEN, TXN_ASKED, TXN_SYNCED, TXN_SEEN, TXN_TORN };

typedef struct history {
    part parts[PARTITIONS];
    uint8_t txns[TXNS];
    uint32_t txn_count;
    bool txn_failed; /* a partition of transactions has failed: nothing can be said of them any more */
    int64_t txn_offset; /* committed offset after the last cut */
    int part_count;
    uint32_t next_number;
    bool store_failed; /* a sync of the checkpoint failed */
    bool created;      /* the store was ready once */
    bool sync_failed;  /* a failure of a sync was injected in this boot */
} history;

enum how_strict {
    AFTER_CUT,   /* what was only written may be missing from some message on */
    AFTER_DEATH, /* only what was in flight may be missing */
    AFTER_CLOSE  /* nothing */
};

static history told;

/* Prints and ends the process; the main program says how to come here again. */
__attribute__((format(printf, 1, 2), noreturn)) static void violated(const char *format, ...);

static void add_span(part *p, span s) {
    if (s.count == 0)
        return;
    span *last = p->span_count > 0 ? &p->spans[p->span_count - 1] : NULL;
    if (last != NULL && last->offset + last->count == s.offset && last->number + (uint32_t)last->count == s.number) {
        last->count += s.count;
        return;
    }
    CHECK(p->span_count < SPANS);
    p->spans[p->span_count++] = s;
}

/* Everything from `offset` on is gone. */
static void cut_spans(part *p, int64_t offset) {
    while (p->span_count > 0) {
        span *last = &p->spans[p->span_count - 1];
        if (last->offset + last->count <= offset)
            return;
        if (last->offset < offset) {
            last->count = offset - last->offset;
            return;
        }
        p->span_count--;
    }
}

static void finish_inflight(part *p) {
    add_span(p, p->inflight);
    if (p->inflight.count > 0 && p->end < p->inflight.offset + p->inflight.count)
        p->end = p->inflight.offset + p->inflight.count;
    p->inflight.count = 0;
}

static void note_commit(part *p, int64_t offset) {
    if (p->commit_count == COMMITS) /* the oldest that may be there is forgotten: what follows only gets stricter */
        violated("the test keeps too few commits");
    p->commits[p->commit_count++] = offset;
}

static void commits_are_synced(part *p) {
    p->commits[0] = p->commits[p->commit_count - 1];
    p->commit_count = 1;
}

/* --- verification --- */

typedef struct reading_state {
    part *p;
    int at; /* span; span_count is the one in flight */
    int64_t within;
    int64_t next; /* offset behind the last message found */
    uint64_t seen;
} reading_state;

static const span *span_at(const part *p, int at) {
    return at < p->span_count ? &p->spans[at] : at == p->span_count && p->inflight.count > 0 ? &p->inflight : NULL;
}

static void step_to(reading_state *r, int64_t offset) {
    for (;;) {
        const span *s = span_at(r->p, r->at);
        if (s == NULL || offset < s->offset + s->count) {
            r->within = s != NULL && offset > s->offset ? offset - s->offset : 0;
            return;
        }
        r->at++;
    }
}

static void expect_record(reading_state *r, const tl_chunk *chunk, const tl_record *record) {
    const part *p = r->p;
    const span *s = span_at(p, r->at);
    long long offset = (long long)record->offset;
    if (s == NULL)
        violated("%s: there is a message at offset %lld that is not (or no longer) part of the log", p->directory,
                 offset);
    if (record->offset != s->offset + r->within)
        violated("%s: the message at offset %lld is missing, the one at %lld is there", p->directory,
                 (long long)(s->offset + r->within), offset);
    uint32_t number = s->number + (uint32_t)r->within;
    uint64_t found = 0;
    memcpy(&found, chunk->bytes + record->value_at, record->value_bytes < 8 ? (size_t)record->value_bytes : 8);
    if (!is_value(number, chunk->bytes + record->value_at, (size_t)record->value_bytes) ||
        record->timestamp_ms != timestamp_of(number))
        violated("%s: the message at offset %lld is not the one that was there (number %u, found %llu)", p->directory,
                 offset, number, (unsigned long long)found);
    r->next = record->offset + 1;
    r->seen++;
    if (++r->within == s->count) {
        r->within = 0;
        r->at++;
    }
}

static void read_all(tl_partition *partition, reading_state *r, int64_t from) {
    static tl_chunk chunk; /* keeps its memory */
    tl_cursor cursor = {.offset = from};
    r->next = from;
    step_to(r, from);
    for (;;) {
        tl_read_end end;
        tl_error err = {0};
        tl_chunk_clear(&chunk);
        int status = tl_partition_read(partition, &cursor, &chunk, 1000, 1 << 20, 0, &end, &err);
        if (status < 0)
            violated("%s: reading from %lld fails: %s, %s (%s at %lld)", r->p->directory, (long long)cursor.offset,
                     tl_status_name(status), err.what, err.path, (long long)err.position);
        if (chunk.count == 0)
            return;
        for (size_t i = 0; i < chunk.count; i++)
            expect_record(r, &chunk, &chunk.records[i]);
    }
}

static void report_finding(void *context, const char *file, int64_t position, const char *what, int64_t first,
                           int64_t next) {
    violated("%s: check: %s at %lld: %s (offsets %lld to %lld)", ((part *)context)->directory, file,
             (long long)position, what, (long long)first, (long long)next);
}

static void verify_commits(tl_store *store, part *p, enum how_strict strict) {
    uint32_t slot = 0;
    tl_offset_word word = {.offset = -1};
    int64_t time = 0;
    if (tl_store_offset_slot(store, "readers", 7, p->channel, 0, false, &slot, NULL) == TL_OK)
        (void)tl_offsets_read(tl_store_offsets(store), slot, &word, &time);
    int from = strict == AFTER_CUT ? 0 : p->commit_count - 1 - (p->committing ? 1 : 0);
    bool known = false;
    for (int i = from; i < p->commit_count; i++)
        known |= p->commits[i] == word.offset;
    if (!known)
        violated("%s: the committed offset is %lld, promised was %lld (%d later ones)", p->directory,
                 (long long)word.offset, (long long)p->commits[from], p->commit_count - 1 - from);
    if (strict == AFTER_CUT) {
        p->commits[0] = word.offset;
        p->commit_count = 1;
    } else if (word.offset != p->commits[p->commit_count - 1]) {
        p->commit_count--; /* the one that had not returned */
    }
    p->committing = false;
}

/* Compares one partition with its history and makes the history say what is left. */
static void verify_part(tl_store *store, part *p, enum how_strict strict, bool may_have_failed) {
    tl_error err = {0};
    tl_partition *partition = NULL;
    tl_bounds bounds;
    int status = tl_store_partition(store, p->slot, p->channel, &partition, &err);
    if (status == TL_OK)
        status = tl_partition_bounds(partition, &bounds, &err);
    if (status < 0)
        violated("%s: it cannot be opened: %s, %s", p->directory, tl_status_name(status), err.what);
    if (bounds.log_start != p->start && bounds.log_start != p->start_asked && bounds.log_start != p->start_in_doubt)
        violated("%s: the log starts at %lld, promised was %lld", p->directory, (long long)bounds.log_start,
                 (long long)p->start);
    p->start = bounds.log_start;
    if (strict == AFTER_CUT)
        p->start_in_doubt = p->start;
    else if (strict == AFTER_DEATH && p->start_asked != p->start)
        p->start_in_doubt = p->start_asked;
    p->start_asked = p->start;
    if (bounds.log_end < p->end || (strict == AFTER_CLOSE && bounds.log_end != p->end))
        violated("%s: the log ends at %lld, its end was at %lld before: offsets would be handed out twice",
                 p->directory, (long long)bounds.log_end, (long long)p->end);
    reading_state r = {.p = p};
    read_all(partition, &r, p->start);
    /* Where the first message stands that is not there. */
    const span *s = span_at(p, r.at);
    int64_t missing = s == NULL ? INT64_MAX : s->offset + r.within;
    if (missing < p->synced)
        violated("%s: the message at offset %lld is lost, everything below %lld was acknowledged as synced",
                 p->directory, (long long)missing, (long long)p->synced);
    if (strict != AFTER_CUT && r.at < p->span_count)
        violated("%s: the message at offset %lld is lost without a power cut", p->directory, (long long)missing);
    if (missing < bounds.log_end && strict != AFTER_CUT && r.at == p->span_count && missing != p->inflight.offset)
        violated("%s: half of a batch is there, up to %lld", p->directory, (long long)missing);
    finish_inflight(p);
    if (missing != INT64_MAX)
        cut_spans(p, missing);
    p->end = bounds.log_end;
    if (strict == AFTER_CUT)
        p->synced = missing < p->end ? missing : p->end; /* what is read after a cut has come from the platter */
    tl_partition_info info;
    if (tl_partition_describe(partition, &info, &err) == TL_OK && info.failed != 0) {
        if (!may_have_failed)
            violated("%s: it counts as failed (errno %d) though no sync did", p->directory, info.failed);
        p->failed = true;
    }
    if (!p->failed) {
        const tl_check_report report = {.context = p, .finding = report_finding};
        status = tl_partition_check(partition, &report, &err);
        if (status < 0)
            violated("%s: check fails: %s, %s (%s)", p->directory, tl_status_name(status), err.what, err.path);
    }
    verify_commits(store, p, strict);
    tl_partition_release(partition);
}

typedef struct finding_slots {
    bool there[PARTITIONS];
} finding_slots;

static int find_part(void *context, uint32_t slot, const tl_partition_config *config) {
    finding_slots *f = context;
    if (memcmp(config->channel, "transactions----", 16) == 0)
        return 0;
    for (int i = 0; i < told.part_count; i++) {
        if (memcmp(told.parts[i].channel, config->channel, 16) == 0) {
            f->there[i] = true;
            told.parts[i].slot = slot;
            return 0;
        }
    }
    violated("the store has a partition %s that nobody made", config->directory);
}

static void verify_store(tl_store *store, enum how_strict strict) {
    finding_slots f = {0};
    (void)tl_store_each_partition(store, &f, find_part);
    for (int i = 0; i < told.part_count; i++) {
        part *p = &told.parts[i];
        if (f.there[i] && (p->existence == NOT_THERE || p->existence == DROPPED))
            violated("%s: it was dropped and is there again", p->directory);
        if (!f.there[i] && p->existence == LIVE)
            violated("%s: it is gone", p->directory);
        if (p->existence == CREATING || p->existence == DROPPING)
            p->existence = f.there[i] ? LIVE : DROPPED;
        if (f.there[i])
            verify_part(store, p, strict, told.sync_failed || p->failed);
    }
}

#endif
