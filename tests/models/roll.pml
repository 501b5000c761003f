/* Does a reader find its way from segment to segment, wherever writers die in a roll? SHARING rules 12 and 14 to 16;
 * native/src/roll.c, append.c, segment.c, seals.c, read.c.
 *
 * Two writers and a reader that walks through the log from its start. A batch is written in one step here (append.pml),
 * the lock is taken in one step (lock.pml). Files are named by the offset they begin at. */
#define RUNNING 2
#include "processes.inc"
#define BATCHES 3
#define FULL 2     /* batches in a segment; it may end before that: tl_partition_roll_early */
#define ORDINALS 3

#define place(ordinal, position) ((ordinal) * 4 + position)
#define ordinal_of(at) ((at) / 4)
#define position_of(at) ((at) % 4)
#define has_died(whose) (incarnation[owner_slot(whose)] != whose / 4 || !holds_byte[owner_slot(whose)])

byte owner, tail;                     /* hot->lock, hot->tail */
byte end_tail[2], end_offset[2];      /* hot->end_a, hot->end_b */
byte active_base[2];                  /* hot->active_base: of the segment with an even, an odd ordinal */
bool file[BATCHES + 1];               /* is there a segment file of this name */
byte bytes[FULL * (BATCHES + 1)];     /* what stands in it: offset + 1 */
bool seal[ORDINALS + 1];              /* is there one whose CRC holds; what it says: */
byte seal_base[ORDINALS + 1], seal_length[ORDINALS + 1], seal_end[ORDINALS + 1];
byte published;                       /* batches, for the assertions */

inline put_seal(nth, first, count, next) { /* seals.c:tl_seals_put; half of one has a wrong CRC: no seal */
    atomic { seal[nth] = true; seal_length[nth] = count; seal_base[nth] = first; seal_end[nth] = next }
}

inline end_of_log() { /* append.c:tl_end_read under the lock */
    at = tail;
    if :: end_tail[0] == at -> k = 0 :: else -> k = 1 fi;
    assert(end_tail[k] == at);
    end = end_offset[k]
}

inline fill_end(there, next) { atomic { end_tail[1 - k] = there; end_offset[1 - k] = next } } /* tl_end_store */

inline append() { /* append.c:tl_partition_append_one */
    atomic { end_of_log(); base = active_base[ordinal_of(at) % 2]; assert(file[base] || position_of(at) == 0) };
    if :: !file[base] -> file[base] = true :: else fi; /* tl_partition_writer: nothing stands in it yet */
    bytes[base * FULL + position_of(at)] = end + 1;
    fill_end(at + 1, end + 1);
    atomic { tail = at + 1; published++ }
}

inline roll() { /* roll.c:tl_partition_roll */
    atomic { end_of_log(); base = active_base[ordinal_of(at) % 2]; assert(!file[end]); file[end] = true }; /* tl_segment_create */
#ifndef BUG_SEAL_AFTER_TAIL
    put_seal(ordinal_of(at), base, position_of(at), end);
    put_seal(ordinal_of(at) + 1, end, 0, 0);
#endif
#ifndef BUG_BASE_AFTER_TAIL
    active_base[(ordinal_of(at) + 1) % 2] = end;
#endif
    fill_end(place(ordinal_of(at) + 1, 0), end);
    tail = place(ordinal_of(at) + 1, 0);
#ifdef BUG_SEAL_AFTER_TAIL
    put_seal(ordinal_of(at), base, position_of(at), end);
    put_seal(ordinal_of(at) + 1, end, 0, 0);
#endif
#ifdef BUG_BASE_AFTER_TAIL
    active_base[(ordinal_of(at) + 1) % 2] = end;
#endif
}

inline repair() { /* roll.c:tl_partition_repair: a roll that did not reach the tail */
    atomic { over = false; end_of_log();
        if :: position_of(at) > 0 && file[end] -> reached(1) :: else fi;
        if :: position_of(at) > 0 && seal[ordinal_of(at)] -> reached(2) :: else fi;
        if :: position_of(at) == 0 && at > 0 -> reached(3) :: else fi
    };
#ifndef BUG_STRAY_SEGMENT_KEPT
    if :: position_of(at) > 0 -> file[end] = false :: else fi
#endif
}

/* segment.c:tl_segment_base: of the active one from the shared words, unless they have moved on meanwhile */
inline find_base() {
    do
    :: ordinal_of(tail) != ordinal ->
        assert(ordinal < ordinal_of(tail));
        atomic { assert(seal[ordinal]); base = seal_base[ordinal]; break }
    :: ordinal_of(tail) == ordinal ->
        base = active_base[ordinal % 2];
#ifdef BUG_BASE_OF_A_LATER_SEGMENT
        if :: ordinal_of(tail) - ordinal <= 1 -> break :: else fi
#else
        if :: ordinal_of(tail) == ordinal -> break :: else -> reached(4) fi
#endif
    od;
    assert(base == offset && file[base]) /* read.c:tl_reading_next, tl_segment_open_reader */
}

active proctype Reader() {
    byte bound, ordinal, position, base, offset, limit;
    do
    :: bound = tail; /* read.c:tl_reading_begin */
       do
       :: place(ordinal, position) >= bound -> break
       :: place(ordinal, position) < bound ->
           if :: position == 0 -> find_base() :: else fi; /* tl_reading_enter; then it is mapped */
           if
           :: atomic { ordinal == ordinal_of(bound) -> limit = position_of(bound) }
           :: atomic { ordinal < ordinal_of(bound) -> assert(seal[ordinal]); limit = seal_length[ordinal] } /* tl_seals_get */
           fi;
           if
           :: atomic { position < limit -> assert(bytes[base * FULL + position] == offset + 1); position++; offset++ }
           :: atomic { position == limit -> assert(seal_end[ordinal] == offset); ordinal++; position = 0 }
           fi
       od;
       atomic { bound = 0; limit = 0 }
    :: NOBODY_RUNS && place(ordinal, position) == tail -> break
    od;
    assert(offset == published)
}

proctype Writer(byte me) {
    byte at, k, end, base;
    bool over;
    do
    :: {
           atomic { take_slot() };
           do
           :: published < BATCHES ->
               atomic { owner == 0 || has_died(owner) -> over = owner != 0; owner = owner_make(me) }; /* tl_partition_lock */
               if :: over -> repair() :: !over fi;
               if
               :: position_of(tail) < FULL && published < BATCHES -> append()
               :: position_of(tail) > 0 && ordinal_of(tail) < ORDINALS - 1 -> roll()
               :: else
               fi;
               atomic { at = 0; k = 0; end = 0; base = 0; assert(owner == owner_make(me)); owner = 0 }
           :: published == BATCHES -> break
           od;
           break
       } unless { atomic { dead[me] -> at = 0; k = 0; end = 0; base = 0; over = false; come_back() } }
    od;
    atomic { holds_byte[me] = false; running-- }
}

init { atomic { run Writer(0); run Writer(1) } }
