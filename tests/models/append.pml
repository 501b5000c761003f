/* Do readers, who take no lock, see whole batches and nothing else, wherever writers die? SHARING rules 12 to 15;
 * native/src/append.c, roll.c (repair), read.c.
 *
 * Two writers and a reader. A batch is two bytes, written one by one. How the lock itself is handed on: lock.pml; here it
 * is taken in one step, from a dead owner too. */
#define RUNNING 2
#include "processes.inc"
#define BATCHES 3

byte owner; /* hot->lock */
byte log[2 * BATCHES], tail, reserved_to; /* the segment; hot->tail, hot->reserve */
byte end_tail[2], end_offset[2];          /* hot->end_a, hot->end_b */
byte indexed;                             /* up to where index entries point: hot->index_entries */
byte published[BATCHES];                  /* who published it, for the assertions */

#define has_died(whose) (incarnation[owner_slot(whose)] != whose / 4 || !holds_byte[owner_slot(whose)])

inline take() { /* append.c:tl_partition_lock */
    atomic {
        owner == 0 || has_died(owner) ->
        over = owner != 0;
        owner = owner_make(me)
    }
}

inline slot_in_force() { if :: end_tail[0] == at -> k = 0 :: else -> k = 1 fi } /* append.c:tl_end_read */

/* publishing.h:tl_append_publish, the store of the tail */
inline publish() { atomic { tail = at + 2; published[at / 2] = me + 1 } }

inline repair() { /* roll.c:tl_partition_repair: wipe_reserved, repair_index */
    atomic {
        at = tail; slot_in_force(); assert(end_tail[k] == at); k = 0; over = false;
        if :: at < reserved_to && log[at] != 0 && log[at + 1] == 0 -> reached(1) :: else fi; /* died while it copied */
        if :: indexed < at -> reached(2) :: else fi /* died between the tail and the index */
    };
#ifndef BUG_NO_ZERO_TO_RESERVE
    do :: at < reserved_to -> atomic { log[at] = 0; at++ } :: else -> break od;
#endif
    atomic { indexed = tail; at = 0 };
    reserved_to = tail
}

inline clean() { /* whoever has the lock finds nothing past the tail */
    assert(reserved_to == at && indexed == at);
    k = at;
    do :: k < 2 * BATCHES -> assert(log[k] == 0); k++ :: else -> break od;
    k = 0
}

inline append() { /* append.c:tl_partition_append_one under the lock */
    atomic { at = tail; clean(); reserved_to = at + 2 }; /* reserve() */
#ifdef BUG_TAIL_BEFORE_COPY
    publish();
#endif
    log[at] = me + 1; log[at + 1] = me + 1; /* tl_batch_encode_one */
    atomic { slot_in_force(); end_tail[1 - k] = at + 2 }; /* tl_end_store: the slot that is not in force, word by word */
    end_offset[1 - k] = at / 2 + 1;
#ifdef BUG_INDEX_AHEAD_OF_DATA
    indexed = at + 2;
#endif
    publish();
    atomic { indexed = at + 2; at = 0; k = 0 } /* note_index */
}

inline look() { /* append.c:tl_end_at, then read.c:tl_partition_read; what is below a tail never changes again */
    at = tail;
    slot_in_force();
#ifdef BUG_END_SLOT_WITHOUT_TAG
    if :: end_offset[0] > end_offset[1] -> k = 0 :: else -> k = 1 fi;
    seen = at;
#else
    seen = end_tail[k];
#endif
    offset = end_offset[k];
    atomic {
        if :: tail == at && seen == at -> assert(offset == at / 2) :: else -> reached(3) fi;
        k = 0;
        do :: k < at -> assert(log[k] == published[k / 2] && log[k] != 0); k++ :: else -> break od;
        assert(indexed <= tail); /* read.c:tl_reading_hint would find no batch there */
        at = 0; k = 0; seen = 0; offset = 0
    }
}

active proctype Reader() {
    byte at, k, seen, offset;
    do
    :: look()
    :: NOBODY_RUNS -> break
    od
}

proctype Writer(byte me) {
    byte at, k;
    bool over;
    do
    :: {
           atomic { take_slot() };
           do
           :: tail < 2 * BATCHES ->
               take();
               if :: over -> repair() :: !over fi;
               if :: tail < 2 * BATCHES -> append() :: else fi;
               atomic { assert(owner == owner_make(me)); owner = 0 } /* publishing.h:tl_append_unlock */
           :: tail == 2 * BATCHES -> break
           od;
           break
       } unless { atomic { dead[me] -> at = 0; k = 0; over = false; come_back() } }
    od;
    atomic { holds_byte[me] = false; running-- }
}

init { atomic { run Writer(0); run Writer(1) } }
