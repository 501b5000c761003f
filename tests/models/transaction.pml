/* Is a transaction there whole or not at all, whoever dies, and does a late finisher hit nothing? SHARING rules 28 and 29;
 * native/src/transactions.c, transaction_end.c, transaction_sweep.c, append_checked.c, opens.c, aborted.c, read.c.
 *
 * Process 0 makes two transactions of one producer, in the same record, each with messages and an offset. Process 1 aborts
 * what is too old and finishes what is decided, process 2 takes the lease of the offset; whoever is left finishes. A reader
 * looks on. All die, and are as slow, as they like: a finisher may write its marker after the next transaction has begun. */
#define RUNNING 3
#define NEWCOMERS 0
#include "processes.inc"
#define has_died(whose) (incarnation[owner_slot(whose)] != whose / 4 || !holds_byte[owner_slot(whose)])

mtype = { FREE, OPEN, COMMITTING, ABORTING };
mtype state = FREE;             /* record->state, stored last */
byte number, offset;            /* record->number, which is the epoch too; the offset it will commit */
bool joined[2], applied;        /* the partitions of the record; is its offset moved */
byte unfinished, lock;          /* header->unfinished, header->transactions_lock */
byte holder, committed;         /* the word of the offset slot: which process has the lease; the offset */
mtype decided[3];               /* what is true, for the assertions */
byte best;
bool offset_read, left;         /* process 2 goes on from the offset it read; process 0 has left */

#define lock_is_free (lock == 0 || has_died(lock)) /* transactions.c:tl_transactions_lock */

inline repair() { /* tl_txn_repair */
    if :: lock != 0 && state == FREE && unfinished > 0 -> reached(5); unfinished = 0 :: else fi;
    lock = 0
}

#define everything_is_ended (crashes == RUNNING || (state == FREE && unfinished == 0 && committed == best))
#include "partitions.inc"

inline give(word) { atomic { assert(word == owner_make(me)); word = 0 } }

inline send(q) { /* transaction_units.c:tl_transaction_join, then append_checked.c under the partition's lock */
    atomic { lock_is_free -> repair(); if :: state == OPEN && number == mine -> joined[q] = true :: else fi };
    take_partition(q);
#ifndef BUG_OPEN_NOT_CHECKED
    if :: !(state == OPEN && number == mine) -> goto refused :: else fi; /* tl_transaction_check_open */
#endif
#ifndef BUG_LSO_AFTER_TAIL
    lso[q] = tail[q]; /* opens.c:tl_transaction_opening */
#endif
    publish(q);
#ifdef BUG_LSO_AFTER_TAIL
    lso[q] = first[q];
#endif
    give(partition_lock[q])
}

inline apply() { /* transaction_end.c:roll_offsets, apply_locked */
    atomic { lock_is_free -> repair();
        if :: state == COMMITTING && number == what && !applied ->
            if :: committed < offset -> committed = offset :: else fi; applied = true :: else fi }
}

inline decide(how_now) { atomic { assert(decided[number] == 0); decided[number] = how_now; state = how_now;
    if :: how_now == COMMITTING -> best = offset; assert(!offset_read) :: else fi } }

inline finish() { /* transaction_end.c:tl_txn_finish: copy, roll_offsets, end_in, note_end */
    atomic { lock_is_free -> repair(); how = state; what = number; marks[0] = joined[0]; marks[1] = joined[1] };
    if
    :: how == COMMITTING || how == ABORTING ->
        if :: how == COMMITTING -> apply() :: else fi;
        if :: marks[0] -> mark(0) :: else fi;
#ifndef BUG_COMMIT_FORGETS_A_PARTITION
        if :: marks[1] -> mark(1) :: else fi;
#endif
        atomic { lock_is_free -> repair();
            if
#ifdef BUG_LATE_END_FREES_NEXT
            :: state != FREE ->
#else
            :: state == how && number == what ->
#endif
                state = FREE; unfinished--
            :: else
            fi }
    :: else
    fi;
    atomic { how = 0; what = 0; marks[0] = false; marks[1] = false }
}

inline sweep() { /* transaction_sweep.c:sweep: past its time-out, or its owner is dead */
    atomic { lock_is_free -> repair(); if :: state == OPEN -> decide(ABORTING) :: else fi };
    finish()
}

inline transact() { /* transactions.c: begin, commit, abort */
    atomic { lock_is_free -> repair(); lock = owner_make(me) }; /* begin_locked; end_earlier has finished what there was */
    atomic { number++; mine = number; offset = mine; joined[0] = false; joined[1] = false; applied = false };
    unfinished++;
    state = OPEN;
    give(lock);
    send(0);
    if :: mine == 1 -> send(1) :: else fi;
    goto decision;
refused:
    atomic { if :: partition_lock[0] == owner_make(me) -> partition_lock[0] = 0 :: else fi;
        if :: partition_lock[1] == owner_make(me) -> partition_lock[1] = 0 :: else fi };
decision:
    atomic { lock_is_free -> repair(); lock = owner_make(me) };
    if
    :: !(state == OPEN && number == mine) -> reached(3) /* somebody aborted it meanwhile: Fenced */
    :: state == OPEN && number == mine -> /* decide_commit */
        if
#ifndef BUG_OFFSETS_WITHOUT_LEASE_CHECK
        :: holder != 0 -> reached(4); decide(ABORTING)
        :: holder == 0 -> decide(COMMITTING)
#else
        :: decide(COMMITTING)
#endif
        :: decide(ABORTING) /* tl_transaction_abort */
        fi
    fi;
    give(lock);
    finish()
}

inline take_lease() { /* assignment.c:tl_member_claim, tl_transactions_finish_slot */
    holder = me;
    if
#ifndef BUG_TAKER_DOES_NOT_FINISH
    :: unfinished > 0 -> atomic { lock_is_free -> repair(); what = number; how = state }; apply()
#endif
    :: else
    fi;
    atomic { how = 0; what = 0; offset_read = true; assert(committed == best) } /* goes on behind all that is committed */
}

proctype Process(byte me) {
    mtype how;
    byte what, mine;
    bool marks[2];
    {
        atomic { take_slot() };
        if
        :: me == 0 -> do :: number < 2 -> transact() :: number == 2 -> break od; atomic { left = true; mine = 0 }
        :: me == 1 -> sweep()
        :: me == 2 -> take_lease()
        fi;
        if :: me != 0 -> (left || dead[0]) :: else fi; /* then whoever is left finishes what is left */
        do
        :: me == 0 || unfinished == 0 -> break
        :: me != 0 && unfinished > 0 -> sweep()
        od
    } unless { dead[me] };
    atomic { holds_byte[me] = false; running-- }
}

init { atomic { run Process(0); run Process(1); run Process(2) } }
